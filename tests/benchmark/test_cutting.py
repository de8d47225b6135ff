"""Circuits from scores of nodes: whole nodes, counted by their edges, never over the budget."""

import pytest
import torch

from interpose.benchmark.cutting import by_edge, circuits, edge_sources, of_nodes
from interpose.benchmark.faithfulness import prove
from interpose.errors import SearchError
from interpose.models.stream import StreamGraph
from interpose.search.scores import Scores

GRAPH = StreamGraph(layers=1, heads=2)
# input -> 2 x (q, k, v), m0, logits; each head -> m0, logits; m0 -> logits: 8 + 2 + 2 + 1 = 13 edges.
NODES = Scores(torch.tensor([1.0, -4.0, 3.0, 2.0]), GRAPH.sources)
LEAVING = {"input": 8, "a0.h0": 2, "a0.h1": 2, "m0": 1}


def names(mask: torch.Tensor) -> set[str]:
    return {GRAPH.edges[i] for i in mask.nonzero().flatten().tolist()}


def test_nodes_are_told_from_edges() -> None:
    assert of_nodes(NODES, GRAPH)
    assert not of_nodes(Scores(torch.zeros(13), GRAPH.edges), GRAPH)
    counts = torch.bincount(edge_sources(GRAPH)).tolist()
    assert dict(zip(GRAPH.sources, counts, strict=True)) == LEAVING


def test_the_best_nodes_bring_all_their_edges_as_far_as_the_budget_goes() -> None:
    budgets = [1, 2, 3, 10, 11, 13]
    masks = circuits(NODES, GRAPH, [budget / 13 for budget in budgets], absolute=False)
    order = ["a0.h1", "m0", "input", "a0.h0"]  # by signed score
    taken = [0, 1, 2, 2, 3, 4]  # 2, then 3, then 11, then 13 edges
    for mask, count in zip(masks, taken, strict=True):
        expected = {edge for edge in GRAPH.edges if edge.split("->")[0] in order[:count]}
        assert names(mask) == expected


def test_by_size_the_largest_come_first_whatever_their_sign() -> None:
    (mask, _) = circuits(NODES, GRAPH, (2 / 13, 1.0), absolute=True)
    assert names(mask) == {"a0.h0->m0", "a0.h0->logits"}


def test_edges_take_the_score_of_their_source_or_share_it() -> None:
    whole, shared = by_edge(NODES, GRAPH, share=False), by_edge(NODES, GRAPH, share=True)
    assert whole["a0.h1->m0"] == 3 and shared["a0.h1->m0"] == 1.5
    assert shared["input->a0.h0<q>"] == 1 / 8
    assert float(shared.values.sum()) == pytest.approx(float(NODES.values.sum()))
    edges = Scores(torch.arange(13.0), GRAPH.edges)
    assert by_edge(edges, GRAPH, share=True) is edges


def test_a_ranking_of_nodes_is_proved_like_one_of_edges() -> None:
    """With a metric that counts edges on the way, faithfulness can be written down."""

    def kept(masks: torch.Tensor) -> torch.Tensor:
        return masks.sum(1, dtype=torch.float64)[:, None].expand(-1, 4) / 13

    proof = prove(NODES, GRAPH, kept)
    points = {point.budget: point for point in proof.circuit.signed.points}
    assert (
        points[6].faithfulness.value == 0
    )  # h1 and m0 alone: nothing leads in from the input, so that nothing is left
    assert points[13].faithfulness.value == 1
    assert [point.kept for point in proof.circuit.signed.points][-1] == 13


def test_scores_of_other_units_are_refused() -> None:
    with pytest.raises(SearchError, match="not about the same units"):
        circuits(Scores(torch.zeros(2), ("a0.h0", "a0.h1")), GRAPH, (0.1, 1.0), absolute=False)


def test_scores_of_a_method_that_grows_circuits_are_cut_by_growing_them() -> None:
    # The best edge leads into a head from which nothing leads on, so that growing from the logits finds it last.
    values = torch.tensor([float(edge.startswith("input->a0.h0")) for edge in GRAPH.edges])
    values[list(GRAPH.edges).index("m0->logits")] = 0.5
    values[list(GRAPH.edges).index("input->m0")] = 0.25
    top = circuits(Scores(values, GRAPH.edges), GRAPH, (2 / 13, 1.0), absolute=False)
    grown = circuits(Scores(values, GRAPH.edges, {"cut": "greedy"}), GRAPH, (2 / 13, 1.0), absolute=False)
    assert names(top[0]) <= {"input->a0.h0<q>", "input->a0.h0<k>", "input->a0.h0<v>"}
    assert names(grown[0]) == {"m0->logits", "input->m0"}
    assert names(grown[1]) == set(GRAPH.edges)
    scores = Scores(values, GRAPH.edges, {"cut": "greedy"})
    assert torch.equal(grown[0], scores.circuit(2, greedy=True, pruned=False).mask)
