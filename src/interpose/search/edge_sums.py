"""Sums over edges: what a source writes otherwise, times the slope at what a destination reads, for all edges at once.

    sum(u -> v) = sum over pairs and positions of (A_corrupt[u] - A_clean[u]) . dm/dx_v

Neither factor is ever laid out for the whole batch. Sources are given as what heads mix before the output projection,
and slopes as those at the projections' outputs: for each layer a few tensors as large as the stream. Here some
positions are taken at a time; what each source writes there is multiplied out, and the destinations pass by, layer by
layer, each from the slope at its projection through the rows of its weights and its norm's own derivative.
"""

from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.graph import Feed, Graph
from interpose.mediators.edges import Reader, readers
from interpose.models.stream import StreamGraph
from interpose.search.sources import Sources
from interpose.trace import Model
from interpose.trace.gradient import grad

_ROWS = 64
"""How many positions are taken at a time, at most: enough to multiply well, few enough to stay near the processor."""

_SMALL = 2**20
"""So many numbers are no matter."""

Tensors = Mapping[str, Tensor]


@final
class EdgeSums:
    """Adds up what edges carry otherwise, times the slope where it arrives.

    Args:
        model: the model.
        graph: its stream graph.
    """

    def __init__(self, model: Model, graph: StreamGraph) -> None:
        """Nothing is recorded before the first sum."""
        self._model, self._graph, self._readers = model, graph, list(readers(model, graph))
        self._recorded: tuple[Graph, Feed] | None = None
        self._sources = Sources(model, graph)
        self._dtype = self._sources.dtype

    def __call__(self, corrupt: Tensors | Tensor, clean: Tensors, slopes: Tensors) -> Float[Tensor, " edges"]:
        """Add up over some pairs, in double precision.

        Args:
            corrupt: what sources write on the corrupt prompts: `embed` and, for each layer, `mlp0` [pair, position,
                width] and what its heads mix, `z0` [pair, position, head, head width]. Or what each source is taken to
                write whatever the prompt [source, 1, position or 1, width].
            clean: the same on the clean prompts.
            slopes: the streams that are read, `stream0` and `mid0` [pair, position, width], and the slope of the
                behaviour at what is made of them: `q0`, `k0`, `v0` [pair, position, row, head width], `in0`, `logits`.

        Returns:
            one sum an edge.
        """
        given = {f"clean.{name}": value for name, value in clean.items()} | {**slopes}
        fixed = corrupt if isinstance(corrupt, Tensor) else None
        given |= {} if isinstance(corrupt, Tensor) else {f"corrupt.{name}": value for name, value in corrupt.items()}
        pairs, positions = slopes["logits"].shape[:2]
        parts = list(blocks_of(pairs, positions, rows_at_once(self._graph, slopes["logits"])))
        graph, feed = self._recorded or self._record(_cut(given, fixed, parts[0]))
        feeds = [feed.with_(None, **_cut(given, fixed, part)) for part in parts]
        total = torch.zeros(self._graph.n_edges, dtype=torch.float64)
        for run in self._model.backend.run_many([graph] * len(feeds), feeds):
            total += run["sums"].double().cpu()
        return total

    def _record(self, given: Tensors) -> tuple[Graph, Feed]:
        with self._model.trace(run=False) as t:
            inputs = {name: t.input(name, torch.empty_like(value, device="meta")) for name, value in given.items()}
            differences: Any = torch.cat([block.flatten(1) for block in self._sources.differences(inputs)])
            sums = []
            for reader in self._readers:
                for slope in self._slopes(reader, inputs):
                    # In this order the processor's library multiplies a few long rows several times as fast.
                    sums.append((differences[: reader.upstream] @ slope.flatten(1).T).T.flatten())
            torch.cat(sums).save("sums")  # type: ignore[attr-defined]
        self._recorded = t.graph, t.feed
        return self._recorded

    def _slopes(self, reader: Reader, inputs: Mapping[str, Any]) -> Iterator[Any]:
        """The slope at the stream that each row of a reader reads [row, pair, position, width], some rows at a time."""
        layer, model = reader.layer, self._model
        if reader.kind == "logits":
            yield self._through_norm(reader, inputs[f"stream{layer}"], inputs["logits"].to(self._dtype).unsqueeze(0))
        elif reader.kind == "mlp":
            stream = f"stream{layer}" if self._graph.parallel else f"mid{layer}"
            yield self._through_norm(reader, inputs[stream], inputs[f"in{layer}"].to(self._dtype).unsqueeze(0))
        else:
            for kind in ("query", "key", "value"):
                weight = model.projection(layer, kind).to(self._dtype)
                made = inputs[f"{kind[0]}{layer}"].to(self._dtype).unflatten(2, (weight.shape[0], -1))
                pulled = torch.einsum("bpkgd,kdm->kgbpm", made, weight).flatten(0, 1)
                yield self._through_norm(reader, inputs[f"stream{layer}"], pulled)

    def _through_norm(self, reader: Reader, stream: Any, pulled: Any) -> Any:
        """From the slope by what a norm gives to that by what it is given."""
        if reader.norm is None:
            return pulled
        copies = stream.unsqueeze(0).expand(pulled.shape[0], -1, -1, -1)
        normed = self._model.call.module(reader.norm, copies)
        return grad(torch.dot(normed.to(self._dtype).flatten(), pulled.flatten()), copies).to(self._dtype)


def _cut(given: Tensors, fixed: Tensor | None, part: tuple[slice, slice]) -> dict[str, Tensor]:
    """What is given, at some pairs and positions."""
    cut = {name: value[part] for name, value in given.items()}
    if fixed is not None:
        cut["fixed"] = fixed if fixed.shape[2] == 1 else fixed[:, :, part[1]]
    return cut


def rows_at_once(graph: StreamGraph, like: Float[Tensor, "pair position width"]) -> int:
    """How many positions at a time take no more memory than four tensors of a layer's stream, for each layer."""
    width = like.shape[-1]
    each = (graph.n_sources + 5 * graph.heads) * width
    rows = max(4 * graph.layers * like.shape[0] * like.shape[1] * width, _SMALL) // each
    return min(max(rows, 1), _ROWS)


def blocks_of(pairs: int, positions: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Cut pairs x positions into blocks of at most `rows`."""
    long, wide = min(positions, rows), max(1, rows // positions)
    for pair in range(0, pairs, wide):
        for position in range(0, positions, long):
            yield slice(pair, pair + wide), slice(position, position + long)
