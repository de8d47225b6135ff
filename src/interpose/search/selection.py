"""From scores to a set of units: the n best, the best on the way to the logits, what of a set of edges is connected.

The rules are those of the MIB circuit track (https://arxiv.org/abs/2504.13151): a budget is spent before pruning, and
pruning only removes. Sets are boolean masks over units, on whatever device they came.
"""

from functools import lru_cache
from heapq import heappop, heappush

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpose.errors import SearchError
from interpose.models.stream import StreamGraph


def ranking(values: Float[Tensor, "units"], *, absolute: bool = False) -> Int[Tensor, "units"]:
    """The units from best to worst; of equals, the one with the lower number comes first.

    Args:
        values: one score a unit, none of them NaN.
        absolute: rank by size, whatever the sign.

    Raises:
        SearchError: a score is NaN, which has no rank.
    """
    unscored = values.isnan()
    if unscored.any():
        raise SearchError(
            f"{int(unscored.sum())} scores are NaN and cannot be ranked; the first is unit {_first(unscored)}."
        )
    return torch.sort(values.abs() if absolute else values, descending=True, stable=True).indices


def top_n(values: Float[Tensor, "units"], n: int, *, absolute: bool = False) -> Bool[Tensor, "units"]:
    """The n units with the highest scores (or the largest, whatever their sign).

    Args:
        values: one score a unit.
        n: how many to take, 0 to all.
        absolute: take the largest, whatever the sign.

    Raises:
        SearchError: n is negative or more than there are, or a score is NaN.
    """
    if not 0 <= n <= len(values):
        raise SearchError(f"Cannot take the top {n} of {len(values)} units. Write a number from 0 to {len(values)}.")
    mask = torch.zeros_like(values, dtype=torch.bool)
    mask[ranking(values, absolute=absolute)[:n]] = True
    return mask


def greedy(
    values: Float[Tensor, "edges"], n: int, graph: StreamGraph, *, absolute: bool = False
) -> Bool[Tensor, "edges"]:
    """The n edges found by growing a circuit from the logits backwards, each time along the best edge in sight.

    In sight are the edges into what is in the circuit: at first the logits; a source that is reached comes in, with all
    that it reads. So every edge taken leads to the logits, but not every one comes from the input: prune.

    Args:
        values: one score an edge, in the order of `graph.edges`.
        n: how many to take, 0 to all.
        graph: whose edges they are.
        absolute: take the largest, whatever the sign.

    Raises:
        SearchError: n is negative or more than there are, or a score is NaN.
    """
    if len(values) != graph.n_edges:
        raise SearchError(f"There are {len(values)} scores, but this graph has {graph.n_edges} edges.")
    if not 0 <= n <= len(values):
        raise SearchError(f"Cannot take {n} of {len(values)} edges. Write a number from 0 to {len(values)}.")
    size = (values.abs() if absolute else values).cpu().tolist()
    order = [
        (ranking(part, absolute=absolute) + start).tolist()
        for part, start in zip(
            values.cpu().split([place.upstream for place in graph.inputs]), graph.offsets, strict=False
        )
    ]
    reads: dict[int, list[int]] = {}
    for row, place in enumerate(graph.inputs):
        for node in place.nodes:
            reads.setdefault(node, []).append(row)
    last, seen = graph.n_destinations - 1, {graph.n_destinations - 1}
    mask, ahead = torch.zeros(len(values), dtype=torch.bool), [_candidate(size, order, last, 0)]
    for _ in range(n):
        _, edge, row, rank = heappop(ahead)
        mask[edge] = True
        if rank + 1 < len(order[row]):
            heappush(ahead, _candidate(size, order, row, rank + 1))
        for new in reads.get(edge - graph.offsets[row], ()):
            if new not in seen:
                seen.add(new)
                heappush(ahead, _candidate(size, order, new, 0))
    return mask.to(values.device)


def _candidate(size: list[float], order: list[list[int]], row: int, rank: int) -> tuple[float, int, int, int]:
    """A destination's edge of some rank, as a heap takes it: the best first, of equals that with the lower number."""
    edge = order[row][rank]
    return -size[edge], edge, row, rank


def threshold(values: Float[Tensor, "units"], at_least: float, *, absolute: bool = False) -> Bool[Tensor, "units"]:
    """The units whose score (or whose size) is at least a threshold.

    Raises:
        SearchError: a score is NaN.
    """
    unscored = values.isnan()
    if unscored.any():
        raise SearchError(
            f"{int(unscored.sum())} scores are NaN and cannot be compared; the first is unit {_first(unscored)}."
        )
    return (values.abs() if absolute else values) >= at_least


def prune(mask: Bool[Tensor, "edges"], graph: StreamGraph) -> Bool[Tensor, "edges"]:
    """The edges that lie on some path from `input` to `logits` within the set.

    This is the fixpoint of: keep a node while it has an outgoing edge and (unless it is `input`) an incoming one, and
    keep an edge while both its ends are kept; `logits` is always kept. A head reads through its query, key and value
    alike. Nothing is ever added.

    Args:
        mask: the edges in the set, in the order of `graph.edges`.
        graph: whose edges they are.

    Raises:
        SearchError: the mask is not as long as the graph has edges.
    """
    if len(mask) != graph.n_edges:
        raise SearchError(f"The mask has {len(mask)} entries, but this graph has {graph.n_edges} edges.")
    real = _real(graph)
    dense = torch.zeros(graph.n_destinations, graph.n_sources, dtype=torch.bool)
    dense[real] = mask.cpu()
    # The fixpoint equals reachability from both ends: every node on a path is reachable itself, and a node that only
    # one end reaches loses its last edge sooner or later. Two sweeps replace the repetition.
    kept = _reached_from_input(dense, graph) & _reaching_logits(dense, graph)
    dense &= kept
    dense &= _open(kept, graph)[:, None]
    return dense[real].to(mask.device)


def nodes(mask: Bool[Tensor, "edges"], graph: StreamGraph) -> Bool[Tensor, "nodes"]:
    """The nodes at either end of any edge in the set, in the order of `graph.nodes`; `logits` always."""
    dense = torch.zeros(graph.n_destinations, graph.n_sources, dtype=torch.bool)
    dense[_real(graph)] = mask.cpu()
    touched = torch.ones(graph.n_sources + 1, dtype=torch.bool)
    touched[:-1] = dense.any(0)
    for read, place in zip(dense.any(1).tolist(), graph.inputs, strict=True):
        # A key shared by a group of heads does not say which of them is meant: those that write on are.
        if read and len(place.nodes) == 1:
            touched[place.nodes[0]] = True
    return touched.to(mask.device)


def _first(mask: Bool[Tensor, "units"]) -> int:
    return int(mask.nonzero()[0])


@lru_cache(maxsize=8)
def _real(graph: StreamGraph) -> Bool[Tensor, "destinations sources"]:
    upstream = torch.tensor([place.upstream for place in graph.inputs])
    return torch.arange(graph.n_sources) < upstream[:, None]


@lru_cache(maxsize=8)
def _feeds(graph: StreamGraph) -> Bool[Tensor, "destinations sources"]:
    """Which sources read at which destination."""
    feeds = torch.zeros(graph.n_destinations, graph.n_sources, dtype=torch.bool)
    for row, place in enumerate(graph.inputs):
        feeds[row, list(place.nodes)] = True
    return feeds


def _open(kept: Bool[Tensor, "sources"], graph: StreamGraph) -> Bool[Tensor, "destinations"]:
    """The destinations at which some kept node reads; the logits always."""
    rows = (_feeds(graph) & kept).any(1)
    rows[-1] = True
    return rows


def _blocks(graph: StreamGraph) -> list[tuple[slice, slice]]:
    """For each layer, first its heads and then its MLP: the rows they read at and the columns they write to."""
    height = (graph.n_destinations - 1) // graph.layers
    pieces = []
    for layer in range(graph.layers):
        top, column, mlp = layer * height, graph.head(layer, 0), graph.mlp(layer)
        pieces.append((slice(top, top + height - 1), slice(column, mlp)))
        pieces.append((slice(top + height - 1, top + height), slice(mlp, mlp + 1)))
    return pieces


def _reached_from_input(dense: Bool[Tensor, "destinations sources"], graph: StreamGraph) -> Bool[Tensor, "sources"]:
    reached = torch.zeros(graph.n_sources, dtype=torch.bool)
    reached[0] = True
    feeds = _feeds(graph)
    for rows, columns in _blocks(graph):
        before = columns.start
        read = (dense[rows, :before] & reached[:before]).any(1)
        reached[columns] = (feeds[rows, columns] & read[:, None]).any(0)
    return reached


def _reaching_logits(dense: Bool[Tensor, "destinations sources"], graph: StreamGraph) -> Bool[Tensor, "sources"]:
    reaching = dense[-1].clone()
    feeds = _feeds(graph)
    for rows, columns in reversed(_blocks(graph)):
        reads = (feeds[rows, columns] & reaching[columns]).any(1)
        reaching |= (dense[rows] & reads[:, None]).any(0)
    return reaching
