"""From scores to circuits of edges of every size, whether edges or nodes were scored.

Scores of nodes enter the edge benchmark as in the MIB circuit track (https://arxiv.org/abs/2504.13151): the best nodes
are taken with all edges that leave them, and what counts is the number of edges. A node that would go over the budget
is left out, and so are all after it, so that circuits are nested. Scores of a method that grows its circuits from the
logits backwards (`Method.cut`) are cut in that way.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpose.benchmark.grid import budgets
from interpose.models.stream import EdgeNames, StreamGraph
from interpose.search.scores import Scores
from interpose.search.selection import greedy, ranking
from interpose.search.units import same_units


def circuits(
    scores: Scores, graph: StreamGraph, sizes: Sequence[float], *, absolute: bool
) -> Bool[Tensor, "sizes edges"]:
    """The circuits of every size, before pruning.

    Args:
        scores: of the edges of `graph`, or of its sources (`input`, heads and MLPs).
        graph: whose edges the circuits are of.
        sizes: shares of all edges.
        absolute: take the largest scores, whatever their sign.

    Raises:
        SearchError: the scores are of other units.
    """
    order = ranking(scores.values.cpu(), absolute=absolute)
    nodes = of_nodes(scores, graph)
    if not nodes:
        same_units(scores.units, graph.edges)
    source = edge_sources(graph)
    spent = torch.bincount(source)[order].cumsum(0) if nodes else None
    grown = not nodes and scores.meta.get("cut") == "greedy"
    masks = torch.zeros(len(sizes), graph.n_edges, dtype=torch.bool)
    for mask, budget in zip(masks, budgets(graph.n_edges, sizes), strict=True):
        if grown:
            mask |= greedy(scores.values.cpu(), budget, graph, absolute=absolute)
        elif spent is None:
            mask[order[:budget]] = True
        else:
            mask |= torch.isin(source, order[spent <= budget])
    return masks


def of_nodes(scores: Scores, graph: StreamGraph) -> bool:
    """Whether the scores are of the sources of the graph, and not of its edges."""
    return not isinstance(scores.units, EdgeNames) and tuple(scores.units) == graph.sources


def by_edge(scores: Scores, graph: StreamGraph, *, share: bool) -> Scores:
    """One score an edge; where nodes were scored, that of the node it leaves.

    Args:
        scores: of edges or of sources.
        graph: whose edges they are.
        share: divide a node's score evenly among the edges that leave it, so that they add up to it.
    """
    if not of_nodes(scores, graph):
        return scores
    source = edge_sources(graph)
    values: Float[Tensor, " edges"] = scores.values.cpu()[source]
    return Scores(values / torch.bincount(source)[source] if share else values, graph.edges, scores.meta)


def edge_sources(graph: StreamGraph) -> Int[Tensor, " edges"]:
    """The number of the source of each edge."""
    return torch.cat([torch.arange(place.upstream) for place in graph.inputs])
