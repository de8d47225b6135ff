"""One prompt through a model: its tokens, the next ones, and pictures of what layers and heads do."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpose.cli.base import make_folder, terminal
from interpose.errors import GraphError, InterposeError, TraceError, UsageError
from interpose.loading import load
from interpose.report.attention_picture import AttentionPicture, attention
from interpose.report.lens_picture import LensPicture, lens, one_token
from interpose.trace import Model, Tokens
from interpose.trace.lines import user_line
from interpose.trace.spelling import columns, spelled, visible

if TYPE_CHECKING:
    from interpose.cli.trace import Trace

_MOST = 1000


@dataclass(frozen=True)
class Seen:
    """What one run showed.

    Attributes:
        model: the model's name.
        tokens: the prompt.
        following: the likeliest next tokens: text, id and probability.
        lens: what each layer would say, if that was asked for.
        attention: where heads look, if that was asked for.
        pictures: the files that were written, by what they show.
    """

    model: str
    tokens: Tokens
    following: list[tuple[str, int, float]]
    lens: LensPicture | None
    attention: AttentionPicture | None
    pictures: dict[str, Path]

    def document(self) -> dict[str, Any]:
        """Everything, for programs."""
        pieces = zip(self.tokens.texts[0], self.tokens.ids[0].tolist(), strict=True)
        made: dict[str, Any] = {
            "model": self.model,
            "prompt": self.tokens.prompts[0],
            "tokens": [{"position": i, "token": text, "id": number} for i, (text, number) in enumerate(pieces)],
            "next": [{"token": text, "id": number, "probability": p} for text, number, p in self.following],
        }
        if self.lens is not None:
            table = [[cell._asdict() for cell in row] for row in self.lens.table]
            made["lens"] = {"target": self.lens.target, "layers": table, "picture": str(self.pictures["lens"])}
        if self.attention is not None:
            heads = [
                {"head": head, "pattern": pattern}
                for head, pattern in zip(self.attention.heads, self.attention.table.tolist(), strict=True)
            ]
            picture = str(self.pictures["attention"])
            made["attention"] = {"layer": self.attention.layer, "heads": heads, "picture": picture}
        return made


def look(asked: "Trace") -> Seen:
    """Run the model on the prompt.

    Args:
        asked: what the command line says.

    Raises:
        InterposeError: the model cannot be loaded or run, or a picture cannot be written.
        UsageError: an option cannot be meant.
    """
    _check(asked)
    if asked.lens or asked.attention is not None:
        make_folder(asked.out)
    model = load(asked.model, device=asked.device)
    with _plain_errors():
        if asked.attention is not None:
            _check_layer(asked.attention, model)
        tokens = model.tokens(asked.prompt)
        if asked.target is not None:
            _check_target(asked.target, model)
        following = _following(model, tokens, asked.top)
        seen_lens = lens(model, tokens, asked.target) if asked.lens else None
        seen_attention = attention(model, tokens, asked.attention) if asked.attention is not None else None
    pictures: dict[str, Path] = {}
    for name, picture in (("lens", seen_lens), ("attention", seen_attention)):
        if picture is not None:
            pictures[name] = picture.save(asked.out / f"{name}.png")
    return Seen(model.info.name, tokens, following, seen_lens, seen_attention, pictures)


def show(seen: Seen) -> None:
    """Write what was seen to standard output."""
    print(f"{seen.tokens}\n")
    rows = [(visible(text), str(number), f"{100 * p:.1f} %") for text, number, p in seen.following]
    print(columns([("next", "id", "probability"), *rows], "<>>"))
    if seen.lens is not None:
        print(f"\n{seen.lens.text(terminal().width)}")
    if seen.attention is not None:
        print(f"\n{seen.attention}")
    for name, path in seen.pictures.items():
        print(f"\n{name.capitalize()}: {path}", end="")
    print(end="\n" if seen.pictures else "")


def _check(asked: "Trace") -> None:
    """Refuse what cannot be meant, before anything is loaded."""
    if not asked.prompt:
        raise UsageError('The prompt is empty; write at least one character: interpose trace "The cat".')
    if not 1 <= asked.top <= _MOST:
        raise UsageError(f"--top is {asked.top}; write a number from 1 to {_MOST:,}.")
    if asked.target is not None and not asked.lens:
        raise UsageError("--target says whose rank the lens shows; write --lens too.")


def _check_layer(layer: int, model: Model) -> None:
    count = model.sizes().layers
    if not -count <= layer < count:
        raise UsageError(f"--attention is {layer}, but {model.info.name} has {count} layers: write 0 to {count - 1}.")


def _check_target(target: str, model: Model) -> None:
    try:
        one_token(model, target)
    except TraceError as error:
        raise UsageError(str(error).removeprefix(f"{user_line()}: ")) from error


def _following(model: Model, tokens: Tokens, top: int) -> list[tuple[str, int, float]]:
    model.sizes()  # a model without a table has no logits by that name
    with model.trace(tokens):
        probabilities = model.logits[0, -1].float().softmax(-1).save()
    best = probabilities.topk(min(top, len(probabilities)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(spelled(model.tokenizer, number), number, p) for number, p in pairs]


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Errors about a program name a line of it first; here there is none that a user wrote."""
    try:
        yield
    except GraphError as error:
        raise InterposeError(str(error).removeprefix(f"{user_line()}: ")) from error
