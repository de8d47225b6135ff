"""Attention patterns: for each head of a layer, how much every token looks at every token before it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from interpose.errors import SiteError
from interpose.report import paper
from interpose.report.lens_picture import one_prompt
from interpose.trace import Model, Tokens
from interpose.trace.lines import user_line
from interpose.trace.spelling import columns, visible

_NAMED = 48
"""Up to how many tokens an axis names each of them; longer ones are numbered."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class AttentionPicture:
    """The attention patterns of some heads. Prints as a table; notebooks show a picture.

    Attributes:
        model: the model's name.
        tokens: the prompt.
        layer: which layer.
        heads: which heads.
        table: how much each token (row) looks at each (column), for each head; rows add up to 1.
    """

    model: str
    tokens: Tokens
    layer: int
    heads: tuple[int, ...]
    table: Float[Tensor, "head query key"]

    def text(self, position: int = -1, most: int = 4) -> str:
        """Where one token looks, head by head.

        Args:
            position: which token.
            most: how many of the tokens it looks at are shown, strongest first.
        """
        names = [visible(token) for token in self.tokens.texts[0]]
        rows = [["head", "looks most at", *[""] * (min(most, len(names)) - 1)]]
        for head, pattern in zip(self.heads, self.table, strict=True):
            found = pattern[position].topk(min(most, len(names)))
            pairs = zip(found.values.tolist(), found.indices.tolist(), strict=True)
            rows.append([str(head), *(f"{key} {names[key]} {100 * weight:.0f}%" for weight, key in pairs)])
        where = position % len(names)
        about = f"from position {where}, {names[where]}: position, token and weight"
        return "\n".join([self._title(), about, "", columns(rows, ">" + "<" * (len(rows[0]) - 1))])

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return paper.image(self.draw(), f"{self._title()}, prompt: {self.tokens.prompts[0]}")

    def save(self, path: str | Path) -> Path:
        """Write the picture to a file that ends in .html, .png or .svg.

        Returns:
            the path.

        Raises:
            InterposeError: the ending is another one, or the folder does not exist.
        """
        return paper.save(path, self._title(), self._repr_html_, self.draw)

    def draw(self) -> Figure:
        """The picture as a figure of matplotlib: one square a head, in which a row looks at the columns."""
        count, many = len(self.tokens.texts[0]), len(self.heads)
        across = min(many, max(1, math.ceil(math.sqrt(many))))
        down = math.ceil(many / across)
        side = min(max(0.155 * count, 1.5), 7.5 if many == 1 else 5.0)
        names, step = self._names()
        margin = 0.35 + max((0.075 * len(name) for name in names), default=0.1)
        gap, top = 0.32, 1.12
        wide, high = margin + across * (side + gap) + 0.85, top + down * (side + gap) - gap + margin
        ticks = range(0, count, step)
        with paper.lettering():
            figure = Figure(figsize=(max(wide, 4.6), high))
            size, drawn = figure.get_size_inches(), None
            for number, (head, pattern) in enumerate(zip(self.heads, self.table.tolist(), strict=True)):
                row, column = divmod(number, across)
                left, low = margin + column * (side + gap), high - top - row * (side + gap) - side
                axes = figure.add_axes((left / size[0], low / size[1], side / size[0], side / size[1]))
                drawn = axes.imshow(_causal(pattern), cmap=paper.BLUES, norm=PowerNorm(0.5, 0, 1), aspect="equal")
                axes.set_title(f"head {head}", size=8.5, loc="left", pad=3, color=paper.INK)
                axes.set_yticks(ticks, names if column == 0 else [])
                axes.set_xticks(ticks, names if number + across >= many else [], rotation=90)
                axes.tick_params(labelsize=6.5, pad=2)
                paper.part(axes, *((count, count) if count <= _NAMED else (0, 0)))
            notes = [f"Prompt: {paper.sentence(self.tokens.prompts[0])}"]
            named = "named" if count <= _NAMED else "numbered"
            notes.append(f"Each row: one token, and how much it looks at each of the tokens {named} below.")
            paper.heading(figure, margin, self._title(), notes)
            place = (margin + across * (side + gap) - gap + 0.16, high - top - min(side, 2.2), min(side, 2.2))
            paper.scale(figure, drawn, place, "attention", [0.0, 0.05, 0.25, 0.5, 1.0])
        return figure

    def _names(self) -> tuple[list[str], int]:
        """What stands at the axes, and how many tokens lie between two names."""
        texts = self.tokens.texts[0]
        if len(texts) <= _NAMED:
            drawable = [paper.drawable(text) for text in texts]
            return [text if len(text) <= 14 else f"{text[:13]}…" for text in drawable], 1
        step = next(step for step in (10, 20, 50, 100, 200, 500, 1000, len(texts)) if len(texts) / step <= 12)
        return [str(i) for i in range(0, len(texts), step)], step

    def _title(self) -> str:
        return f"Attention of layer {self.layer} in {self.model}"


def attention(model: Model, prompt: str | Tokens, layer: int, heads: Sequence[int] | None = None) -> AttentionPicture:
    """The attention patterns of a layer on one prompt.

    Args:
        model: a language model with standard names and a tokenizer.
        prompt: one prompt.
        layer: which layer; -1 is the last.
        heads: which heads; by default all.

    Returns:
        the patterns; they print as a table, and `.save("attention.png")` writes a picture.

    Raises:
        SiteError: there is no such layer or head.
        TraceError: there are several prompts.
    """
    tokens, dims = one_prompt(model, prompt), model.sizes()
    chosen = tuple(range(dims.heads) if heads is None else heads)
    wrong = [head for head in chosen if not 0 <= head < dims.heads]
    if wrong or not chosen:
        said = f"no head {wrong[0]}" if wrong else "no head to show"
        raise SiteError(f"{user_line()}: there is {said}: each layer has {dims.heads} heads, 0 to {dims.heads - 1}.")
    part = model.layers[layer]
    with model.trace(tokens):
        pattern = part.attn.pattern[0].save()
    return AttentionPicture(model.info.name, tokens, layer % dims.layers, chosen, pattern[list(chosen)].float().cpu())


def _causal(pattern: list[list[float]]) -> Any:
    """The pattern, without what a token cannot look at."""
    values = torch.tensor(pattern)
    later = torch.ones_like(values, dtype=torch.bool).triu(1) & (values == 0)
    return values.masked_fill(later, float("nan")).numpy()
