"""What `interpose zoo` does, once its options are read."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpose import discovery
from interpose.cli._listing import Row, pick, show
from interpose.cli.base import terminal, write_json
from interpose.errors import UsageError
from interpose.loading.cards import Card, cards

if TYPE_CHECKING:
    from interpose.cli.zoo import Train

RECIPES = "interpose.studies._zoo"


def list_models(*, as_json: bool) -> None:
    """Write the models of the zoo to standard output, those that interpose made first."""
    rows = map(_row, sorted(cards().values(), key=lambda card: card.made is None))
    show(list(rows), one=False, as_json=as_json, hint="`interpose zoo show NAME` explains one.")


def show_model(name: str, *, as_json: bool) -> None:
    """Write all that one card says to standard output.

    Raises:
        UsageError: there is no such model; the message lists those that exist.
    """
    row = pick(list(map(_row, cards().values())), name, "model in the zoo")
    card = cards()[name]
    if as_json:
        write_json({**asdict(card), "folder": str(card.folder)})
        return
    show([row], one=True, as_json=False, hint="")
    if card.truth is not None:
        terminal().print("\nIts circuit:\n" + "\n".join(f"  {edge}" for edge in card.truth.edges))


def train_model(order: "Train") -> None:
    """Make a model and write its scores to standard output.

    Raises:
        InterposeError: nothing can be written there, or the checkpoint in the folder is of another run.
        UsageError: there is no such recipe.
    """
    found = discovery.find(RECIPES, order.name)  # before torch is loaded
    from interpose.cli._progress import bars
    from interpose.cli.base import make_folder
    from interpose.loading.placement import placement
    from interpose.studies._zoo._making import Order, make
    from interpose.studies._zoo.base import recipe

    if order.steps is not None and order.steps < 0:
        raise UsageError(f"--steps {order.steps} is no number of steps; expected 0 or more.")
    placement(device=order.device)  # refused here, with what there is
    out = order.out or Path("out/zoo") / found.name
    make_folder(out)
    with bars():
        card = make(recipe(found.name), Order(found.name, out, order.device, order.seed, order.steps))
    if order.json:
        write_json({**asdict(card), "folder": str(card.folder)})
        return
    screen = terminal()
    for name, score in card.scores.items():
        screen.print(f"{name}  {score.value:.4f}  [{score.low:.4f}, {score.high:.4f}]  n={score.n}")
    screen.print(f"{card.parameters:,} parameters, {card.made.cost if card.made else ''}")
    screen.print(f'In {out}. Load it with interpose.load("{_written(out)}").')


def _written(out: Path) -> str:
    return str(out) if out.is_absolute() else f"./{out}"


def _row(card: Card) -> Row:
    facts: dict[str, Any] = {"architecture": card.architecture, "parameters": card.parameters, "licence": card.licence}
    if card.task:
        facts["task"] = card.task
    if card.made is not None:
        facts |= {"data": card.made.data, "seed": card.made.seed, "steps": card.made.steps, "cost": card.made.cost}
    for name, score in card.scores.items():
        facts[name] = f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}], n={score.n}"
    if card.truth is not None:
        facts["true edges"] = len(card.truth.edges)
    facts |= {"note": card.note, "origin": card.origin}
    doc = f"{card.what}\n\nLoad it with `interpose.load({json.dumps(card.name)})`."
    if card.made is not None:
        doc += f" Make it again with `interpose zoo train {card.name}`."
    if card.truth is not None:
        doc += f"\n\n{card.truth.proof}"
    return Row(card.name, card.what, facts, doc)
