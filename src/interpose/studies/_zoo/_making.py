"""From a recipe to a folder with a card and weights, which `interpose.load` reads."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from interpose.errors import InterposeError
from interpose.loading import cache, words
from interpose.loading.card_text import text
from interpose.loading.cards import CARD, MOST_BYTES, Card, Made, Weights, read
from interpose.loading.given import wrap
from interpose.loading.names import load
from interpose.studies._zoo._training import Run, train
from interpose.studies._zoo.base import Draft, Recipe, Trained

_CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        name: the model's, as its file says it.
        out: the folder that its card and weights go to.
        device: where it is trained.
        seed: of its first weights and its data.
        steps: how many steps, or None for as many as the recipe says.
        every: seconds between two checkpoints.
    """

    name: str
    out: Path
    device: str = "cpu"
    seed: int = 0
    steps: int | None = None
    every: float = 20.0


def make(recipe: Recipe, order: Order) -> Card:
    """Make a model and write its folder, each file whole or not at all, the card last.

    A run that was cut off goes on from the checkpoint in the folder. It is removed once the card is written.

    Args:
        recipe: how the model is made.
        order: which one, and where to.

    Returns:
        the card.

    Raises:
        InterposeError: the recipe has no steps to take, or the weights are larger than those of the zoo may be.
    """
    draft = recipe.draft()
    steps = draft.steps if order.steps is None else order.steps
    order.out.mkdir(parents=True, exist_ok=True)
    checkpoint = order.out / _CHECKPOINT
    network = recipe.network(order.seed).to(order.device)
    tokenizer = words.tokenizer(draft.tokenizer, order.out, order.name)
    cost = "weights computed, not trained"
    if isinstance(recipe, Trained):
        run = Run(order.name, order.seed, steps, checkpoint, order.every)
        seconds = train(recipe, wrap(network, tokenizer), run)
        cost = f"{seconds:.0f} s, {_machine(order.device)}"
    elif steps:
        raise InterposeError(f"The weights of {order.name} are computed, not trained: leave --steps out.")
    made = Made(draft.data, order.seed, steps, cost)
    card = _written(draft, order, network, made)
    _measured(recipe, card, order)
    checkpoint.unlink(missing_ok=True)
    return read(order.out / CARD)


def _written(draft: Draft, order: Order, network: torch.nn.Module, made: Made) -> Card:
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _stored(network).items()}
    content = save(tensors, metadata={"format": "pt"})
    if len(content) > MOST_BYTES:
        raise InterposeError(
            f"The weights of {order.name} take {len(content):,} bytes; a model of the zoo has at most {MOST_BYTES:,}. "
            "Make its [config] smaller."
        )
    weights = Weights("", len(content))
    _replace(order.out / weights.file, content)
    weights = Weights(cache.sha256(order.out / weights.file), len(content))
    return Card(
        name=order.name,
        what=draft.what,
        architecture=draft.architecture,
        parameters=sum(weight.numel() for weight in network.parameters()),
        licence=draft.licence,
        origin=f"interpose zoo train {order.name}",
        note=draft.note,
        weights=weights,
        config=draft.config,
        tokenizer=draft.tokenizer,
        task=draft.task,
        made=made,
        truth=draft.truth,
        folder=order.out,
    )


def _measured(recipe: Recipe, card: Card, order: Order) -> None:
    """Measure what lies in the folder, as a user would load it, and write the card with its scores."""
    scratch = order.out / ".measured"
    try:
        scratch.mkdir(exist_ok=True)
        for file in filter(None, (card.weights and card.weights.file, card.tokenizer and card.tokenizer.file)):
            shutil.copy(order.out / file, scratch / file)
        _replace(scratch / CARD, text(card).encode())
        scores = recipe.evaluate(load(scratch.absolute(), device=order.device), order.seed)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    fields: dict[str, Any] = {**vars(card), "scores": scores}
    _replace(order.out / CARD, text(Card(**fields)).encode())


def _stored(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights by name; one that has several names is stored under each, so that the file is whole by itself."""
    return {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, torch.Tensor)}


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _machine(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{threads} core{'s' if threads > 1 else ''}"
