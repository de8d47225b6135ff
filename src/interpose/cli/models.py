"""`interpose models`: what can be loaded by name, and which architectures have named parts."""

import ast
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from interpose.cli._listing import Row, pick, show
from interpose.cli.base import OptionalArgument
from interpose.loading.cards import Card, cards


@dataclass(frozen=True)
class Models:
    """List the models that load by name, and the architectures whose parts have names; or explain one.

    Any other model loads by its hub name or from a folder, as in `interpose.load("openai-community/gpt2")`; an
    architecture without named parts works by the paths of its modules.

    Examples:
        interpose models
        interpose models smollm2-135m-instruct
        interpose models --json
    """

    name: OptionalArgument = None
    """The one to explain in full; without it, all are listed."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Write the list, or the explanation, to standard output."""
        rows = [*map(_model, cards().values()), *_families()]
        if self.name is not None:
            rows = [pick(rows, self.name, "model or architecture")]
        hint = "`interpose models NAME` explains one."
        show(rows, one=self.name is not None, as_json=self.json, hint=hint)


def _model(card: Card) -> Row:
    summary = f"{card.what} {_amount(card.parameters)} parameters, {card.licence}. {card.note.capitalize()}."
    facts: dict[str, str | int] = {
        "architecture": card.architecture,
        "parameters": card.parameters,
        "licence": card.licence,
        "note": card.note,
        "origin": card.origin,
        **({"task": card.task} if card.task else {}),
    }
    doc = f"{card.what}\n\nLoad it with `interpose.load({card.name!r})`."
    return Row(card.name, summary, facts, doc, kind="model")


def _families() -> list[Row]:
    """Every file of `interpose.models` with a `FAMILY = Family(...)`, read without importing it."""
    folder = Path(str(files("interpose") / "models"))
    found = [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.py"))]
    return [_family(path, tree) for path, tree in found if _model_types(tree)]


def _family(path: Path, tree: ast.Module) -> Row:
    doc = ast.get_docstring(tree) or ""
    facts: dict[str, str | int] = {"model types": ", ".join(_model_types(tree))}
    return Row(path.stem.replace("_", "-"), doc.partition("\n")[0], facts, doc, kind="architecture")


def _model_types(tree: ast.Module) -> tuple[str, ...]:
    """The `config.model_type`s that a file's FAMILY is for; none where it has no FAMILY."""
    calls = [node.value for node in tree.body if isinstance(node, ast.Assign) and _assigns_family(node)]
    keywords = [keyword for call in calls if isinstance(call, ast.Call) for keyword in call.keywords]
    return tuple(name for k in keywords if k.arg == "model_types" for name in ast.literal_eval(k.value))


def _assigns_family(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "FAMILY" for target in node.targets)


def _amount(number: int) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.{1 if size == 1e9 else 0}f} {word}"
    return f"{number:,}"
