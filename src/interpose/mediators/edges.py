"""Edges: who writes to the residual stream, and which later part reads it.

The stream is a sum, so each reader's input can be split by writer. Cutting the edge u -> v means that v reads what u
wrote on the corrupt prompt in place of what it writes now: x_v + (A_corrupt[u] - A_now[u]), for every cut edge at once
(the MIB circuit track, https://arxiv.org/abs/2504.13151). The stock network runs; only the readers' inputs are computed
here, from the stock norms and slices of the stock weights, and enter at the projections. With every edge cut the run is
the corrupt run; with none it is the clean run, up to rounding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.mediators.base import Mediator, Prompts
from interpose.models.stream import EdgeNames, StreamGraph
from interpose.trace import Model

_BLOCK = 64
"""How many sources are kept together: few enough to copy, enough to multiply well."""


@final
@dataclass(frozen=True)
class Edges(Mediator):
    """One unit an edge of the residual stream: `a0.h1->a3.h2<q>`, `m4->logits`.

    Attributes:
        grouped: count key and value edges once a key/value head. By default each query head has its own, as MIB counts
            them.
    """

    grouped: bool = False

    def graph(self, model: Model) -> StreamGraph:
        """Which edges a model has.

        Args:
            model: the model.

        Returns:
            its stream graph.

        Raises:
            SearchError: the stream itself is normed, so that it is no sum; cross attention feeds it too; or query heads
                that share a key cannot be given keys of their own.
        """
        dims = model.sizes()
        table, shared = model.table(), dims.kv_heads < dims.heads
        fixed = table.fixed("attn.k", dims)
        if table.encoder is not None:
            raise SearchError(
                "This model's layers are fed by an encoder, through cross attention, whose edges are not counted. "
                "Units that are places work: Heads(), MLPs(), Streams()."
            )
        if table.mid_norm is not None or table.output_norm is not None:
            raise SearchError(
                "This model norms the stream itself after each addition (post-norm), so what a part reads is no sum of "
                "what others wrote, and there are no edges to cut. Search over other mediators, such as Heads()."
            )
        if fixed and not self.grouped:
            raise SearchError(
                f"This family {fixed}, so query heads that share a key cannot be cut apart. Write Edges(grouped=True)."
            )
        grouped = self.grouped and shared
        return StreamGraph(
            dims.layers,
            dims.heads,
            parallel=dims.parallel,
            grouped=grouped,
            kv_heads=dims.kv_heads if grouped else None,
        )

    def units(self, model: Model, prompts: Prompts | None = None) -> EdgeNames:  # noqa: ARG002
        """The edges' names, destination by destination."""
        return self.graph(model).edges


@dataclass(frozen=True)
class Reader:
    """One part of the model that reads the stream, possibly by many rows of the stream graph at once.

    Attributes:
        kind: `attn`, `mlp` or `logits`.
        layer: its layer; for the logits, the number of layers.
        rows: which destinations of the stream graph they are; for `attn` all queries, then keys, then values.
        upstream: how many sources lie before it.
        norm: path of the norm it reads through, or None.
    """

    kind: str
    layer: int
    rows: slice
    upstream: int
    norm: str | None


def readers(model: Model, graph: StreamGraph) -> Iterator[Reader]:
    """The readers of a model in the order in which they run: each layer's attention and MLP; the logits."""
    table, row = model.table(), 0
    width = graph.heads + 2 * graph.readers
    for layer in range(graph.layers):
        yield Reader("attn", layer, slice(row, row + width), graph.upstream(row), table.path("attn_norm", layer))
        row += width
        yield Reader("mlp", layer, slice(row, row + 1), graph.upstream(row), table.path("mlp_norm", layer))
        row += 1
    yield Reader("logits", graph.layers, slice(row, row + 1), graph.upstream(row), table.final_norm)


def stream_at(model: Model, reader: Reader) -> Any:
    """In a block: the stream that a reader reads, before any norm [batch, position, width]."""
    if reader.kind == "logits":
        return model.layers[-1].output
    layer = model.layers[reader.layer]
    return layer.mid if reader.kind == "mlp" and not model.sizes().parallel else layer.input


def written(model: Model, layer: int, part: str, first: int | None) -> Any:
    """In a block: what sources write to the stream from position `first` on [source, batch, position, width].

    Args:
        model: the model.
        layer: which layer; ignored for `input`.
        part: `input` (the embedding), `heads` or `mlp`.
        first: the first position wanted, counted from the last (-1); None for all.
    """
    if part == "input":
        return model.embed[:, first:].unsqueeze(0)
    if part == "heads":
        return model.layers[layer].attn.result[:, first:].permute(2, 0, 1, 3)
    return model.layers[layer].mlp.output[:, first:].unsqueeze(0)


def all_written(model: Model, first: int | None) -> Any:
    """In a block: what every source writes, in the order of the stream graph [source, batch, position, width]."""
    parts = [written(model, 0, "input", first)]
    for layer in range(model.sizes().layers):
        parts += [written(model, layer, "heads", first), written(model, layer, "mlp", first)]
    return torch.cat(parts)


def projected(model: Model, layer: int, graph: StreamGraph) -> tuple[Any, Any, Any]:
    """In a block: a layer's queries, keys and values, one head a row of the graph [batch, position, row, head width].

    Where several query heads share a key, it is repeated, not yet written: what is written back may differ by head.
    """
    attn = model.layers[layer].attn
    groups = graph.readers // model.sizes().kv_heads
    if groups == 1:
        return attn.q, attn.k, attn.v
    return attn.q, attn.k.repeat_interleave(groups, 2), attn.v.repeat_interleave(groups, 2)


def weights_of(model: Model, layer: int, graph: StreamGraph) -> Any:
    """In a block: the projections of a layer's queries, keys and values [row, head width, width]."""
    groups = graph.readers // model.sizes().kv_heads
    key, value = model.projection(layer, "key"), model.projection(layer, "value")
    if groups > 1:
        key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    return torch.cat([model.projection(layer, "query"), key, value])


def cut_edges(model: Model, graph: StreamGraph, corrupt: Any, cut: Any, first: int | None, start: int = 0) -> None:
    """In a block: let every reader read the corrupt values over its cut edges.

    Args:
        model: the model; a world with the clean inputs is open.
        graph: its stream graph.
        corrupt: what each source writes on the corrupt inputs, from `all_written` [source, batch, position, width]; an
            axis of length 1 stands for all.
        cut: 1 where an edge is cut, 0 where it is kept, between for a mixture [destination, source]; with a third axis,
            each prompt of the batch has its own [destination, source, batch].
        first: the first position where clean and corrupt inputs differ, counted from the last (-1); None for all.
        start: no edge is cut into a layer before this one, so that nothing is written there.
    """
    differences = [corrupt[:1] - written(model, 0, "input", first)]
    for reader in readers(model, graph):
        if reader.layer >= start:
            _enter(model, graph, reader, _change(cut[reader.rows], differences, reader.upstream), first)
        if reader.kind == "attn":
            sources = slice(graph.head(reader.layer, 0), graph.mlp(reader.layer))
            _append(differences, corrupt[sources] - written(model, reader.layer, "heads", first))
        elif reader.kind == "mlp":
            source = graph.mlp(reader.layer)
            _append(differences, corrupt[source : source + 1] - written(model, reader.layer, "mlp", first))


def _append(blocks: list[Any], new: Any) -> None:
    """Put more sources behind the others. They lie in blocks, so that what came before is not copied at every layer."""
    if blocks[-1].shape[0] + new.shape[0] <= _BLOCK:
        blocks[-1] = torch.cat([blocks[-1], new])
    else:
        blocks.append(new)


def _change(cut: Any, blocks: list[Any], upstream: int) -> Any:
    """What cutting changes in the stream that each row reads: over its first `upstream` sources [row, batch, ...]."""
    parts, start = [], 0
    for block in blocks:
        count = min(block.shape[0], upstream - start)
        if count > 0:
            here = cut[:, start : start + count]
            apart = len(cut.shape) == 3
            parts.append(
                torch.einsum("vsb,sbpm->vbpm", here, block[:count])
                if apart
                else torch.tensordot(here, block[:count], 1)
            )
        start += block.shape[0]
    return sum(parts[1:], parts[0])


def _enter(model: Model, graph: StreamGraph, reader: Reader, change: Any, first: int | None) -> None:
    """Let a reader read its stream with a change, one a row."""
    put_reading(model, graph, reader, reading(model, graph, reader, change, first), first)


def reading(model: Model, graph: StreamGraph, reader: Reader, change: Any, first: int | None) -> tuple[Any, ...]:
    """In a block: what a reader makes of its stream with a change, from position `first` on.

    Args:
        model: the model.
        graph: its stream graph.
        reader: the reader.
        change: of the stream, one a row of the reader, or one for all [row, batch, position, width].
        first: the first position of the change, counted from the last (-1); None for all.

    Returns:
        queries, keys and values [batch, position, row, head width]; for another reader what its norm gives.
    """
    stream = stream_at(model, reader)[:, first:]
    if reader.kind == "logits":
        return (model.call.norm(stream + change[0]),)
    if reader.kind == "mlp":
        changed = stream + change[0]
        return (changed if reader.norm is None else model.call.module(reader.norm, changed),)
    if reader.norm is not None:
        change = model.call.module(reader.norm, stream + change) - model.layers[reader.layer].attn.input[:, first:]
    added = torch.einsum("vbpm,vdm->bpvd", change, weights_of(model, reader.layer, graph))
    parts = added.split([graph.heads, graph.readers, graph.readers], 2)
    return tuple(
        [own[:, first:] + part for own, part in zip(projected(model, reader.layer, graph), parts, strict=True)]
    )


def put_reading(model: Model, graph: StreamGraph, reader: Reader, values: Sequence[Any], first: int | None) -> None:
    """In a block: let a reader go on with values as `reading` gives them, from position `first` on."""
    if reader.kind == "logits":
        model.norm.output[:, first:] = values[0]
    elif reader.kind == "mlp":
        model.layers[reader.layer].mlp.input[:, first:] = values[0]
    else:
        attn = model.layers[reader.layer].attn
        for name, own, value in zip("qkv", projected(model, reader.layer, graph), values, strict=True):
            setattr(attn, name, value if first is None else torch.cat([own[:, :first], value], 1))


def table_of(values: Float[Tensor, "edges"] | Bool[Tensor, "edges"], graph: StreamGraph) -> Tensor:
    """One number an edge, laid out as [destination, source]; 0 where there is no edge."""
    laid = torch.zeros(graph.n_destinations, graph.n_sources, dtype=values.dtype, device=values.device)
    upstream = torch.tensor([place.upstream for place in graph.inputs], device=values.device)
    laid[torch.arange(graph.n_sources, device=values.device) < upstream[:, None]] = values
    return laid
