"""How well scores find a circuit that is known: the AUROC of edges against a truth.

Two ways are offered, and the first is the one that tables here show.

- `edge_auroc` ranks all edges by their signed score: a method that says "this hurts" has not found the edge. It looks
  at every threshold, so it needs no choice of sizes and no way of growing a circuit, and its value for scores that say
  nothing is .5.
- `circuits_auroc` is that of the MIB circuit track (https://arxiv.org/abs/2504.13151): true and false positive rates of
  circuits of ten sizes, the false ones divided by the largest, joined by straight lines from the smallest circuit on.
  It depends on the ten sizes and on how circuits are grown (there: from the logits backwards), and the area left of
  the smallest circuit is lost; random scores get .44 there.
"""

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from interpose.errors import SearchError, SiteError
from interpose.metrics.auroc import auroc
from interpose.models.stream import EdgeNames, StreamGraph
from interpose.search.scores import Scores


def edge_auroc(scores: Scores, truth: Collection[str]) -> float:
    """The chance that a true edge has a higher signed score than one that is not, a tie counted as half.

    Args:
        scores: of all edges of a model, keys and values not grouped.
        truth: the names of the true edges, as on a card of the zoo: `cards()[name].truth.edges`.

    Returns:
        0 to 1; .5 where the scores say nothing.

    Raises:
        SearchError: the scores are not of edges, the truth names an edge that the model does not have, or it names none
            or all.
    """
    return float(auroc(scores.values.cpu(), mask_of(truth, scores.graph)))


def circuits_auroc(circuits: Sequence[Collection[str]], graph: StreamGraph, truth: Collection[str]) -> float:
    """The AUROC of circuits of rising size, as the MIB circuit track computes it.

    An edge that a circuit does not name is not found: a true one lowers the true positive rate, and one that is not
    true counts as rightly left out, also where a file of that circuit never speaks of it.

    Args:
        circuits: the edges of each, from the smallest circuit to the largest.
        graph: the model's.
        truth: the names of the true edges.

    Returns:
        0 to 1.

    Raises:
        SearchError: fewer than two circuits, an edge that the model does not have, no true edge or no other, or the
            largest circuit has only true edges, so that there are no false positive rates to compare.
    """
    right = mask_of(truth, graph)
    found = [mask_of(circuit, graph) for circuit in circuits]
    if len(found) < 2 or not 0 < int(right.sum()) < len(right):
        raise SearchError(
            f"An AUROC of circuits needs two or more circuits and edges of both kinds; here are {len(found)} circuits "
            f"and {int(right.sum())} of {len(right)} edges are true."
        )
    hit = torch.stack([(mask & right).sum() / right.sum() for mask in found]).double()
    false = torch.stack([(mask & ~right).sum() / (~right).sum() for mask in found]).double()
    if not bool(false[-1] > 0):
        raise SearchError(
            "The largest circuit has only true edges, so that its false positive rate is 0 and the others cannot be "
            "divided by it. Add larger circuits, up to all edges, or use edge_auroc."
        )
    return float(torch.trapezoid(hit, false / false[-1]))


def mask_of(edges: Collection[str], graph: StreamGraph) -> Bool[Tensor, " edges"]:
    """Which edges of a graph are named.

    Args:
        edges: names of edges.
        graph: the model's.

    Returns:
        a mask in the order of `graph.edges`.

    Raises:
        SearchError: the model has no edge of such a name.
    """
    names, mask = EdgeNames(graph), torch.zeros(graph.n_edges, dtype=torch.bool)
    for edge in edges:
        try:
            mask[names.number(edge)] = True
        except SiteError as error:
            grouped = " A truth counts keys and values of each head: score with Edges()." if graph.grouped else ""
            raise SearchError(f"The edge {edge!r} is none of this model's: {error}{grouped}") from error
    return mask
