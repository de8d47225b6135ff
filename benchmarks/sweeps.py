"""What is patched in `speed.py`: a model, prompts and units; and the ways to do it that need no other library.

A sweep runs the clean prompts once for each unit, with that unit's value from the corrupt prompts, and keeps the mean
of logit(answer) - logit(wrong). A patcher does it unit by unit, so that a sample of the units tells what all take.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn

import interpose as ip
from interpose.mediators.base import PlaceMediator, Unit


@final
@dataclass(frozen=True)
class Sweep:
    """Units of a model to patch, on pairs that all have the same number of tokens."""

    name: str
    model: ip.Model
    pairs: ip.Pairs
    mediator: PlaceMediator

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """What is patched, in the order of the scores."""
        if not bool(self.pairs.mask.all()):
            raise ValueError(f"{self.name}: prompts of unequal length; some libraries here take no mask")
        return self.mediator.places(self.model, self.pairs)

    @property
    def length(self) -> int:
        """Tokens of each prompt."""
        return self.pairs.clean_tokens.shape[1]

    def given(self, side: str) -> dict[str, Any]:
        """What the network is called with: the token ids, and that only the last position's logits are wanted."""
        ids = getattr(self.pairs, f"{side}_tokens").to(self.model.device)
        return {"input_ids": ids, "use_cache": False, "logits_to_keep": 1}

    @cached_property
    def _answers(self) -> tuple[Tensor, Tensor, Tensor]:
        device = self.model.device
        rows = torch.arange(len(self.pairs), device=device)
        return rows, self.pairs.answers.to(device), self.pairs.wrong.to(device)

    def measure(self, logits: Tensor) -> Tensor:
        """The mean of logit(answer) - logit(wrong) at the last position, of logits [pair, position, token]."""
        rows, answers, wrong = self._answers
        last = logits[:, -1]
        return (last[rows, answers] - last[rows, wrong]).mean()

    def clean(self) -> float:
        """The measure of the clean prompts as they are."""
        return float(self.measure(self.model.network(**self.given("clean")).logits))

    def twin(self) -> Any:
        """A copy of the network that shares its weights, for a library to change."""
        return twin(self.model.network)

    def ours(self) -> Tensor:
        """The whole sweep by interpose: one score a unit, clean minus patched."""
        return (
            ip.methods.ActivationPatching(batch_size=len(self.pairs))
            .score(self.model, self.pairs, self.mediator)
            .values
        )


def twin(network: nn.Module) -> Any:
    """A copy of a network that shares its weights."""
    return copy.deepcopy(network, {id(kept): kept for kept in [*network.parameters(), *network.buffers()]})


@final
@dataclass(frozen=True)
class Patcher:
    """One way to do a sweep.

    Attributes:
        source: runs the corrupt prompts once and gives what is patched in.
        patch: takes that and some units; gives the measure of each.
        by_layer: all units of a layer are done together, so a sample is of layers.
        note: what a reader should know.
    """

    source: Callable[[], Any]
    patch: Callable[[Any, Sequence[Unit]], Tensor]
    by_layer: bool = False
    note: str = ""


def layer_of(unit: Unit) -> int:
    """Which layer a unit lies in."""
    return int(unit.site.name.split(".")[1])


def is_stream(sweep: Sweep) -> bool:
    """Whether the units are the stream after a layer; else they are heads."""
    return sweep.units[0].site.name.endswith(".output")


def raw_hooks(sweep: Sweep) -> Patcher:
    """torch's own hooks, one patch a forward."""
    network, heads = sweep.twin(), sweep.model.sizes().heads
    layers, streams = network.model.layers, is_stream(sweep)

    def split(z: Tensor) -> Tensor:
        return z.unflatten(-1, (heads, -1))

    def put(layer: int, change: Callable[[Tensor], None]) -> Any:
        """Let a function change the stream after a layer, or what its heads give."""
        if streams:
            return layers[layer].register_forward_hook(lambda module, args, output: change(output))
        return layers[layer].self_attn.o_proj.register_forward_pre_hook(lambda module, args: change(split(args[0])))

    def source() -> list[Tensor]:
        found: list[Tensor] = []
        handles = [put(layer, lambda value: found.append(value.clone())) for layer in range(len(layers))]
        try:
            network(**sweep.given("corrupt"))
        finally:
            for handle in handles:
                handle.remove()
        return found

    def one(values: list[Tensor], unit: Unit) -> Tensor:
        layer, index = layer_of(unit), unit.index()

        def change(value: Tensor) -> None:
            value[index] = values[layer][index]

        handle = put(layer, change)
        try:
            return sweep.measure(network(**sweep.given("clean")).logits)
        finally:
            handle.remove()

    return Patcher(source, lambda values, units: torch.stack([one(values, unit) for unit in units]))


def batched_hooks(sweep: Sweep) -> Patcher:
    """torch's own hooks, one forward a layer: row i of the batch is patched at position i. One pair, streams."""
    plain, network = raw_hooks(sweep), sweep.twin()
    given = sweep.given("clean")
    rows, answer, wrong = given["input_ids"], int(sweep.pairs.answers), int(sweep.pairs.wrong)

    def one(values: list[Tensor], layer: int, positions: list[int]) -> Tensor:
        at, each = torch.tensor(positions, device=rows.device), torch.arange(len(positions), device=rows.device)

        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            output[each, at] = values[layer][0, at]

        handle = network.model.layers[layer].register_forward_hook(hook)
        try:
            last = network(**{**given, "input_ids": rows.expand(len(positions), -1)}).logits[:, -1]
        finally:
            handle.remove()
        return last[:, answer] - last[:, wrong]

    def patch(values: list[Tensor], units: Sequence[Unit]) -> Tensor:
        by_layer: dict[int, list[int]] = {}
        for unit in units:
            assert unit.position is not None
            by_layer.setdefault(layer_of(unit), []).append(unit.position)
        return torch.cat([one(values, layer, positions) for layer, positions in by_layer.items()])

    return Patcher(plain.source, patch, by_layer=True, note="one forward a layer, a row of the batch a position")


HOOKS = {"raw hooks": raw_hooks}
"""One patch a forward; always there, and what all others must agree with."""
BATCHED = {"raw hooks, batched by hand": batched_hooks}
