"""The logit lens: what each layer would say next, if the model stopped there.

Every layer's output goes through the model's own final norm and unembedding ("interpreting GPT: the
logit lens", https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru). It shows what can be read there so, and no more: what
the model uses of it is for an intervention to say.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from matplotlib.figure import Figure

from interpose.errors import TraceError
from interpose.graph import markup
from interpose.report import paper
from interpose.trace import Model, Tokens
from interpose.trace.lines import user_line
from interpose.trace.spelling import columns, spelled, visible, width

_MOST = 24
"""How many positions a picture shows: the last ones."""


class Cell(NamedTuple):
    """What one layer says at one position: its likeliest token, that token's probability, the rank of the target."""

    token: str
    probability: float
    rank: int | None


@final
@dataclass(frozen=True, eq=False, repr=False)
class LensPicture:
    """What every layer would say next at every position. Prints as a table; notebooks show it as a picture.

    Attributes:
        model: the model's name.
        tokens: the prompt.
        table: the cells [layer][position].
        target: the token whose rank is given in the cells, or None.
    """

    model: str
    tokens: Tokens
    table: tuple[tuple[Cell, ...], ...]
    target: str | None = None

    def text(self, wide: int | None = None) -> str:
        """The table for a terminal: the first layer on top, and as many of the last positions as there is room for.

        Args:
            wide: characters a line may have; by default as many as the terminal has.
        """
        wide = wide or shutil.get_terminal_size((100, 24)).columns
        prompt = [visible(token) for token in self.tokens.texts[0]]
        held = [[f"{i} {_short(prompt[i])}", *(self._cell(row[i]) for row in self.table)] for i in range(len(prompt))]
        layers = ["layer", *map(str, range(len(self.table)))]
        room, shown = wide - len("layer"), 0
        for column in reversed(held):
            room -= 2 + max(map(width, column))
            if room < 0 and shown:
                break
            shown += 1
        rows = list(zip(layers, *held[-shown:], strict=True))
        notes = [self._title(), *self._notes(shown)]
        return "\n".join([*notes, "", columns(rows, ">" + "<" * shown)])

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        shown = min(len(self.tokens.texts[0]), _MOST)
        first = len(self.tokens.texts[0]) - shown
        rows = [self._row(layer, first) for layer in reversed(range(len(self.table)))]
        names = [
            f"<th>{i}<br/>{markup.text(visible(self.tokens.texts[0][i]))}</th>" for i in range(first, first + shown)
        ]
        said = [f"Prompt: {self.tokens.prompts[0]}", *self._notes(shown)]
        notes = "".join(f'<div style="opacity:.75">{markup.text(note)}</div>' for note in said)
        foot = f"<tfoot><tr><th></th>{''.join(names)}</tr></tfoot>"
        style = f"{markup.MONO};font-size:12px;white-space:pre;text-align:center"
        table = f'<table style="{style}" cellspacing="1" cellpadding="3"><tbody>{"".join(rows)}</tbody>{foot}</table>'
        return f'{markup.title(self._title())}{notes}<div style="overflow-x:auto">{table}</div>'

    def save(self, path: str | Path) -> Path:
        """Write the picture to a file that ends in .html, .png or .svg.

        Returns:
            the path.

        Raises:
            InterposeError: the ending is another one, or the folder does not exist.
        """
        return paper.save(path, self._title(), self._repr_html_, self.draw)

    def draw(self) -> Figure:
        """The picture as a figure of matplotlib: the last layer on top, the prompt's tokens below."""
        prompt = self.tokens.texts[0]
        shown = min(len(prompt), _MOST)
        cells = [row[-shown:] for row in self.table]
        notes = [f"Prompt: {paper.sentence(self.tokens.prompts[0])}", *self._notes(shown)]
        notes[1] = (
            "Each cell: the likeliest next token after that layer; colour: its probability; bold: the last layer's."
        )
        cell, left, top, low = (0.74, 0.29 if self.target is None else 0.36), 0.62, 0.5 + 0.19 * len(notes), 0.62
        wide, high = max(shown * cell[0], 4.2), len(cells) * cell[1]
        with paper.lettering():
            figure = Figure(figsize=(left + wide + 1.0, low + high + top))
            size = figure.get_size_inches()
            axes = figure.add_axes((left / size[0], low / size[1], wide / size[0], high / size[1]))
            values = [[one.probability for one in row] for row in cells]
            drawn = axes.imshow(values, cmap=paper.BLUES, vmin=0, vmax=1, aspect="auto", origin="lower")
            self._write(axes, cells, 72 * wide / shown - 5)
            names = [paper.fitted(paper.drawable(token), 72 * wide / shown - 2, 8.0, 5.5) for token in prompt[-shown:]]
            axes.set_xticks(range(shown), [name for name, _ in names])
            for label, (_, points) in zip(axes.get_xticklabels(), names, strict=True):
                label.set(size=points, weight="bold")
            axes.set_yticks(range(len(cells)), [str(layer) for layer in range(len(cells))])
            axes.set(xlabel="token of the prompt", ylabel="layer")
            paper.part(axes, shown, len(cells))
            paper.heading(figure, left, self._title(), notes)
            place = (left + wide + 0.16, low + high - min(high, 2.2), min(high, 2.2))
            paper.scale(figure, drawn, place, "probability of the token", [0.0, 0.25, 0.5, 0.75, 1.0])
        return figure

    def _write(self, axes: Any, cells: Sequence[Sequence[Cell]], room: float) -> None:
        for layer, row in enumerate(cells):
            for position, cell in enumerate(row):
                text, size = paper.fitted(paper.drawable(cell.token), room, 7.5)
                final_token = cell.token == cells[-1][position].token
                colour = "white" if cell.probability > 0.6 else paper.INK
                above = 0.17 if self.target is not None else 0.0
                weight = "bold" if final_token else "normal"
                place = {"ha": "center", "va": "center", "color": colour}
                axes.text(position, layer + above, text, size=size - 0.3 * final_token, weight=weight, **place)
                if cell.rank is not None:
                    axes.text(position, layer - 0.27, f"{cell.rank:,}", size=5.5, alpha=0.8, **place)

    def _row(self, layer: int, first: int) -> str:
        made = []
        for position, cell in enumerate(self.table[layer][first:], first):
            colour = "#fff" if cell.probability > 0.55 else "inherit"
            weight = ";font-weight:700" if cell.token == self.table[-1][position].token else ""
            about = f"layer {layer}, position {position}: {cell.token!r} {cell.probability:.3f}"
            rank = "" if cell.rank is None else f" <small>{cell.rank:,}</small>"
            ranked = "" if cell.rank is None else f"; {self.target!r} is number {cell.rank:,}"
            style = f"background:rgba(29,95,191,{cell.probability:.2f});color:{colour}{weight}"
            shown = markup.text(visible(cell.token))
            made.append(f'<td title="{markup.text(about + ranked)}" style="{style}">{shown}{rank}</td>')
        return f"<tr><th>{layer}</th>{''.join(made)}</tr>"

    def _cell(self, cell: Cell) -> str:
        rank = "" if cell.rank is None else f" #{cell.rank}"
        return f"{_short(visible(cell.token))} {100 * cell.probability:.0f}%{rank}"

    def _title(self) -> str:
        return f"Logit lens of {self.model}"

    def _notes(self, shown: int) -> list[str]:
        notes = ["Each cell: the likeliest next token after that layer, and its probability."]
        if self.target is not None:
            notes.append(f"The number in a cell is the rank of {self.target!r}; 1 is the likeliest.")
        if shown < len(self.tokens.texts[0]):
            notes.append(f"The last {shown} of {len(self.tokens.texts[0])} positions.")
        return notes


def lens(model: Model, prompt: str | Tokens, target: str | None = None) -> LensPicture:
    """The logit lens: every layer's output at every position, through the final norm and the unembedding.

    Args:
        model: a language model with standard names and a tokenizer.
        prompt: one prompt.
        target: a token whose rank is wanted too, such as " Paris".

    Returns:
        what each layer would say next; it prints as a table, and `.save("lens.png")` writes a picture.

    Raises:
        TraceError: there are several prompts, or the target is not one token.

    Example:
        ```python
        print(ip.report.lens(model, "The Eiffel Tower is in the city of", target=" Paris"))
        ```
    """
    tokens = one_prompt(model, prompt)
    number = None if target is None else one_token(model, target)
    kept: dict[str, list[Any]] = {"probability": [], "token": [], "rank": []}
    with model.trace(tokens) as t:
        for layer in model.layers:
            logits = model.call.unembed(model.call.norm(layer.output))[0].float()
            best = logits.softmax(-1).max(-1)
            kept["probability"].append(best.values)
            kept["token"].append(best.indices)
            if number is not None:
                kept["rank"].append((logits > logits[:, number : number + 1]).sum(-1) + 1)
        for name, found in kept.items():
            if found:
                stacked: Any = torch.stack(found)
                stacked.save(name)
    saved = {name: t.saved[name].tolist() for name in t.saved}
    spelling = {token: spelled(model.tokenizer, token) for row in saved["token"] for token in row}
    ranks = saved.get("rank") or [[None] * len(row) for row in saved["token"]]
    table = tuple(
        tuple(Cell(spelling[token], chance, rank) for token, chance, rank in zip(*row, strict=True))
        for row in zip(saved["token"], saved["probability"], ranks, strict=True)
    )
    return LensPicture(model.info.name, tokens, table, target)


def one_prompt(model: Model, prompt: str | Tokens) -> Tokens:
    """The tokens of one prompt.

    Raises:
        TraceError: it is not one.
    """
    tokens = prompt if isinstance(prompt, Tokens) else model.tokens(prompt)
    if len(tokens) != 1:
        raise TraceError(f"{user_line()}: a picture is of one prompt, and these are {len(tokens)}. Make one for each.")
    return tokens


def one_token(model: Model, target: str) -> int:
    """The id of a token by its text.

    Raises:
        TraceError: the text is not one token.
    """
    tokens = model.tokenizer(target, add_special_tokens=False)["input_ids"]
    if len(tokens) != 1:
        found = ", ".join(repr(spelled(model.tokenizer, token)) for token in tokens)
        raise TraceError(
            f"{user_line()}: the target {target!r} is {len(tokens)} tokens ({found}); expected one. A word inside a "
            f"sentence begins with a blank: {' ' + target.strip()!r}."
        )
    return tokens[0]


def _short(text: str, most: int = 12) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
