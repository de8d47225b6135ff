"""How close a sweep comes to what the machine can do: the work that its patches can reach, over the matrix rate."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, final

import torch
from sweeps import Sweep, is_stream, layer_of
from torch import nn

ROWS = (14, 105, 420, 3150)
"""How many tokens are multiplied at once when the rate is measured."""


@final
@dataclass(frozen=True)
class Costs:
    """Floating-point operations of a stock network of the Llama kind, two for each multiply and add.

    Attributes:
        layers: how many layers.
        linear: of one token through the matrices of one layer.
        after_heads: the same from the heads' output on: output projection and MLP.
        context: of one token's attention to one position, in one layer.
        unembed: of the logits at one position.
    """

    layers: int
    linear: int
    after_heads: int
    context: int
    unembed: int

    @classmethod
    def of(cls, sweep: Sweep) -> "Costs":
        """The costs of a sweep's network."""
        layer, sizes = sweep.model.network.model.layers[0], sweep.model.sizes()
        return cls(
            layers=sizes.layers,
            linear=2 * _weights(layer),
            after_heads=2 * (_weights(layer.self_attn.o_proj) + _weights(layer.mlp)),
            context=4 * sizes.heads * sizes.head_width,
            unembed=2 * sizes.width * sizes.vocab,
        )

    def full(self, layers: int, first: int, length: int) -> int:
        """Of whole layers from one position to the last, every token attending to all before it and itself."""
        tokens = length - first
        seen = sum(range(first + 1, length + 1))
        return layers * (tokens * self.linear + seen * self.context)


def _weights(module: nn.Module) -> int:
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))


def useful(sweep: Sweep) -> dict[str, float]:
    """What a sweep has to compute: for each patch that changes anything, all that it can reach.

    A patch at a position before the prompts first differ changes nothing. Of the others, every later layer is counted
    at every position from the patch on, and the logits at the last position where the patch can reach them.

    Returns:
        `patches` that are worth running, of `all`, and their `flops`.
    """
    costs, streams, length = Costs.of(sweep), is_stream(sweep), sweep.length
    firsts = [int(row.nonzero()[0]) for row in sweep.pairs.differs]
    patches, flops = 0, 0
    for first in firsts:
        for unit in sweep.units:
            layers = costs.layers - 1 - layer_of(unit)
            start = length + (unit.position or 0) if streams else first
            if start < first:
                continue
            patches += 1
            flops += costs.full(layers, start, length)
            flops += 0 if streams else (length - start) * costs.after_heads
            flops += costs.unembed if layers or not streams or start == length - 1 else 0
    return {"patches": patches, "all": len(firsts) * len(sweep.units), "flops": float(flops)}


@final
@dataclass(frozen=True)
class Rates:
    """What torch's linear reaches on the shapes of one layer, in floating-point operations a second.

    Attributes:
        shapes: by shape and rows, such as `576x1536` and 105.
        layer: by rows, all matrices of the layer one after another.
    """

    shapes: dict[str, dict[int, float]]
    layer: dict[int, float]

    @property
    def best(self) -> float:
        """The highest rate of a layer's matrices, whatever the rows: the limit."""
        return max(self.layer.values())


@torch.no_grad()
def rates(network: Any, rows: Sequence[int] = ROWS, seconds: float = 0.2) -> Rates:
    """Measure the matrix products of a network's first layer, without anything between them.

    Args:
        network: of the Llama kind.
        rows: how many tokens are multiplied at once.
        seconds: how long each product is repeated.
    """
    linears = [part for part in network.model.layers[0].modules() if isinstance(part, nn.Linear)]
    shapes: dict[str, dict[int, float]] = {}
    layer = {}
    for count in rows:
        took = flops = 0.0
        once: dict[str, float] = {}
        for linear in linears:
            name = f"{linear.in_features}x{linear.out_features}"
            once.setdefault(name, 0.0)
            once[name] = once[name] or _seconds(linear, count, seconds)
            took, flops = took + once[name], flops + 2 * count * linear.weight.numel()
        layer[count] = flops / took
        for name, spent in once.items():
            wide, out = map(int, name.split("x"))
            shapes.setdefault(name, {})[count] = 2 * count * wide * out / spent
    return Rates(shapes, layer)


def _seconds(linear: nn.Linear, count: int, seconds: float) -> float:
    """The median of several spells of calls, a call."""
    weight = linear.weight
    given = torch.randn(count, linear.in_features, device=weight.device, dtype=weight.dtype)
    calls, spent = 1, 0.0
    spells: list[float] = []
    while spent < seconds or len(spells) < 3:
        started = _now(weight)
        for _ in range(calls):
            nn.functional.linear(given, weight)
        took = _now(weight) - started
        if took < seconds / 20:
            calls, spells = 2 * calls, []
            continue
        spent += took
        spells.append(took / calls)
    return median(spells)


def _now(weight: torch.Tensor) -> float:
    if weight.is_cuda:
        torch.cuda.synchronize(weight.device)
    return time.perf_counter()
