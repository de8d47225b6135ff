"""Scores and circuits against a known circuit, on a graph small enough to count by hand."""

import pytest
import torch

from interpose.benchmark.truth import circuits_auroc, edge_auroc, mask_of
from interpose.errors import SearchError
from interpose.models.stream import StreamGraph
from interpose.search.scores import Scores

GRAPH = StreamGraph(layers=1, heads=1)  # input -> q, k, v, mlp, logits; head -> mlp, logits; mlp -> logits
EDGES = tuple(GRAPH.edges)
TRUTH = ("input->a0.h0<v>", "a0.h0->logits")


def scores(**by_number: float) -> Scores:
    values = torch.zeros(len(EDGES))
    for name, value in by_number.items():
        values[int(name.removeprefix("e"))] = value
    return Scores(values, GRAPH.edges, {})


def test_the_graph_is_the_one_counted_here() -> None:
    assert EDGES == (
        "input->a0.h0<q>",
        "input->a0.h0<k>",
        "input->a0.h0<v>",
        "input->m0",
        "a0.h0->m0",
        "input->logits",
        "a0.h0->logits",
        "m0->logits",
    )


def test_true_edges_on_top_give_one_and_the_sign_counts() -> None:
    assert edge_auroc(scores(e2=3.0, e6=0.1), TRUTH) == 1
    assert edge_auroc(scores(e2=-3.0, e6=-0.1), TRUTH) == 0
    assert edge_auroc(scores(), TRUTH) == 0.5
    # One true edge below five of the six others, tied with none: 6 + 1 of 12 comparisons are won.
    assert edge_auroc(scores(e2=9.0, e6=-1.0, e7=-2.0), TRUTH) == pytest.approx(7 / 12)


def test_an_edge_that_a_circuit_does_not_name_is_not_found() -> None:
    # The peer's comparison counted a missing edge as found; then these circuits would have had every true edge.
    circuits = [("a0.h0->logits",), ("a0.h0->logits", "input->m0", "m0->logits"), EDGES]
    hit, false = [1 / 2, 1 / 2, 1], [0, 2 / 6, 1]
    expected = sum((hit[i] + hit[i + 1]) / 2 * (false[i + 1] - false[i]) for i in range(2))
    assert circuits_auroc(circuits, GRAPH, TRUTH) == pytest.approx(expected)
    none = [(), ("input->m0",)]
    assert circuits_auroc(none, GRAPH, TRUTH) == 0


def test_the_false_positive_rates_are_divided_by_the_last() -> None:
    part = [TRUTH, (*TRUTH, "input->m0", "m0->logits")]
    assert circuits_auroc(part, GRAPH, TRUTH) == 1


def test_the_area_left_of_the_smallest_circuit_is_lost() -> None:
    circuits = [("input->m0", *TRUTH), EDGES]
    assert circuits_auroc(circuits, GRAPH, TRUTH) == pytest.approx(5 / 6)


def test_a_truth_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(SearchError, match="The edge 'a3.h0->m3' is none of this model's: This model has no source"):
        edge_auroc(scores(), ("a3.h0->m3",))
    grouped = StreamGraph(layers=1, heads=2, grouped=True, kv_heads=1)
    with pytest.raises(SearchError, match=r"A truth counts keys and values of each head: score with Edges\(\)"):
        mask_of(("input->a0.h0<v>",), grouped)
    with pytest.raises(SearchError, match="Only edges have a graph"):
        edge_auroc(Scores(torch.zeros(2), ("a0.h0", "m0"), {}), ("m0",))
    with pytest.raises(SearchError, match="0 of 8 are true. Give a truth with at least one of each"):
        edge_auroc(scores(), ())


def test_circuits_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(SearchError, match="needs two or more circuits and edges of both kinds; here are 1 circuits"):
        circuits_auroc([TRUTH], GRAPH, TRUTH)
    with pytest.raises(SearchError, match="The largest circuit has only true edges"):
        circuits_auroc([TRUTH[:1], TRUTH], GRAPH, TRUTH)
