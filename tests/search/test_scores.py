import json

import pytest
import torch
from safetensors.torch import save_file

from interpose.errors import SearchError, SiteError
from interpose.models.stream import StreamGraph
from interpose.search import Circuit, Scores
from interpose.search.scores import SIGN

GRAPH = StreamGraph(2, 2)
HEADS = ("a0.h0", "a0.h1", "a1.h0", "a1.h1")


def edge_scores(seed: int = 0, **meta) -> Scores:
    return Scores(torch.randn(46, generator=torch.Generator().manual_seed(seed)), GRAPH.edges, meta)


def test_top_is_a_table_by_rank() -> None:
    scores = Scores(torch.tensor([0.5, -3.0, 0.25, 1.0]), HEADS)
    assert [(row.rank, row.unit, row.score) for row in scores.top(2)] == [(1, "a1.h1", 1.0), (2, "a0.h0", 0.5)]
    assert str(scores.top(2)).splitlines() == [
        "rank  unit         score",
        "   1  a1.h1           +1",
        "   2  a0.h0         +0.5",
    ]
    assert scores.top(1, absolute=True)[0] == (1, "a0.h1", -3.0)
    assert len(scores.top(99)) == 4
    assert len(scores.top(0)) == 0


def test_scores_print_what_they_are() -> None:
    scores = Scores(torch.tensor([0.5, -3.0, 0.25, 1.0]), HEADS, {"method": "eap", "task": "ioi", "model": "toy"})
    assert repr(scores) == "Scores(4 units (a0.h0, a0.h1, a1.h0, ...), eap, ioi, toy, best a1.h1 +1)"
    assert repr(Scores(torch.zeros(46), GRAPH.edges)) == "Scores(46 edges, best input->a0.h0<q> +0)"


def test_a_score_is_found_by_name() -> None:
    scores = edge_scores()
    assert scores["m0->m1"] == float(scores.values[list(GRAPH.edges).index("m0->m1")])
    assert Scores(torch.arange(4.0), HEADS)["a1.h0"] == 2.0
    with pytest.raises(SiteError, match="no source 'a9.h9'"):
        scores["a9.h9->logits"]
    with pytest.raises(SearchError, match=r"There is no unit 'm0' here. The units are 4 units \(a0.h0"):
        Scores(torch.arange(4.0), HEADS)["m0"]


def test_the_sign_is_always_recorded_and_no_other_is_taken() -> None:
    assert edge_scores().meta["sign"] == SIGN == "positive = the part helps the behaviour"
    with pytest.raises(SearchError, match="These scores say their sign is 'positive = hurts'.*Negate the values"):
        edge_scores(sign="positive = hurts")


def test_nan_is_refused_by_the_name_of_its_unit() -> None:
    values = torch.zeros(46)
    values[GRAPH.edges.number("a0.h1->m1")] = float("nan")
    with pytest.raises(SearchError, match="The score of a0.h1->m1 is NaN, and 1 of 46 are"):
        Scores(values, GRAPH.edges)


def test_values_and_units_must_match() -> None:
    with pytest.raises(SearchError, match="There are 3 scores for 46 units"):
        Scores(torch.zeros(3), GRAPH.edges)
    with pytest.raises(SearchError, match="The mask has 3 entries for 4 units"):
        Circuit(torch.ones(3, dtype=torch.bool), HEADS, 3)


def test_scores_hold_no_autograd_graph() -> None:
    assert not Scores(torch.zeros(4, requires_grad=True), HEADS).values.requires_grad


def test_a_circuit_of_edges_is_pruned_unless_asked_not_to() -> None:
    values = torch.zeros(46)
    for name, score in {"input->m0": 4.0, "m0->logits": 3.0, "a0.h0->m1": 2.0, "m1->logits": -9.0}.items():
        values[GRAPH.edges.number(name)] = score
    scores = Scores(values, GRAPH.edges, {"task": "ioi"})
    circuit = scores.circuit(3)
    assert circuit.edges() == ("input->m0", "m0->logits")
    assert circuit.nodes() == ("input", "m0", "logits")
    assert (circuit.n, len(circuit), circuit.pruned) == (3, 2, True)
    assert circuit.meta["task"] == "ioi"
    assert repr(circuit) == "Circuit(2 of 46 edges, 3 asked for, pruned)"
    whole = scores.circuit(3, pruned=False)
    assert set(whole.edges()) == {"input->m0", "m0->logits", "a0.h0->m1"}
    assert whole.prune().edges() == circuit.edges()
    assert "m1->logits" in scores.circuit(1, absolute=True, pruned=False).edges()


def test_everything_is_the_full_circuit() -> None:
    assert len(edge_scores().circuit(46)) == 46
    with pytest.raises(SearchError, match="Cannot take the top 47 of 46 units"):
        edge_scores().circuit(47)


def test_a_circuit_of_heads_has_names_but_no_edges() -> None:
    circuit = Scores(torch.tensor([0.5, -3.0, 0.25, 1.0]), HEADS).circuit(2)
    assert circuit.names() == ("a0.h0", "a1.h1")
    assert not circuit.pruned
    for ask in (circuit.edges, circuit.nodes, circuit.prune):
        with pytest.raises(SearchError, match=r"Only edges have a graph; these units are 4 units .* Search with Edges"):
            ask()


def test_intersection_keeps_only_what_both_have() -> None:
    # Counting an edge that one side lacks as shared would flatter every comparison.
    first, second = edge_scores(0).circuit(20, pruned=False), edge_scores(1).circuit(20, pruned=False)
    both = first.intersect(second)
    assert set(both.edges()) == set(first.edges()) & set(second.edges())
    assert both.n == len(both) < 20


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (StreamGraph(2, 2, parallel=True).edges, "parallel=False.* against .*parallel=True"),
        (HEADS, r"46 edges against 4 units"),
    ],
)
def test_circuits_over_other_units_do_not_meet(units, message: str) -> None:
    other = Circuit(torch.ones(len(units), dtype=torch.bool), units, len(units))
    with pytest.raises(SearchError, match=f"not about the same units: .*{message}"):
        edge_scores().circuit(5).intersect(other)


def test_the_first_unit_that_differs_is_named() -> None:
    mask = torch.ones(4, dtype=torch.bool)
    with pytest.raises(SearchError, match="unit 2 is a1.h0 in one and m0 in the other"):
        Circuit(mask, HEADS, 4).intersect(Circuit(mask, (*HEADS[:2], "m0", "a1.h1"), 4))
    # The same edges written out are the same units.
    mask = torch.ones(46, dtype=torch.bool)
    assert len(Circuit(mask, GRAPH.edges, 46).intersect(Circuit(mask, tuple(GRAPH.edges), 46))) == 46


@pytest.mark.parametrize("units", [GRAPH.edges, tuple(f"unit {i}" for i in range(46))])
def test_what_is_saved_comes_back(tmp_path, units) -> None:
    meta = {"seed": 3, "settings": {"steps": 5}, "timings": [0.5, 1.0], "task": "ioi · é"}
    scores = Scores(edge_scores().values, units, meta)
    back = Scores.load(scores.save(tmp_path / "scores.safetensors"))
    assert back.values.equal(scores.values)
    assert back.units == scores.units
    assert back.meta == scores.meta
    circuit = scores.circuit(7, pruned=False)
    again = Circuit.load(circuit.save(tmp_path / "circuit.safetensors"))
    assert again.mask.equal(circuit.mask)
    assert (again.n, again.pruned, again.names(), again.meta) == (7, False, circuit.names(), circuit.meta)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circuit.safetensors", "scores.safetensors"]


def test_names_of_edges_are_not_written_out(tmp_path) -> None:
    graph = StreamGraph(30, 9)
    path = Scores(torch.zeros(graph.n_edges), graph.edges).save(tmp_path / "s.safetensors")
    assert path.stat().st_size < 4 * graph.n_edges + 2000


def test_meta_that_is_not_json_is_refused_and_leaves_no_file(tmp_path) -> None:
    with pytest.raises(SearchError, match="The meta cannot be stored as JSON: Tensor .*Use numbers, text, lists"):
        edge_scores(thing=torch.zeros(1)).save(tmp_path / "s.safetensors")
    assert not list(tmp_path.iterdir())
    with pytest.raises(SearchError, match="There is no folder .*nowhere to write s.safetensors into"):
        edge_scores().save(tmp_path / "nowhere" / "s.safetensors")


def header(**changes) -> dict[str, str]:
    graph = {"layers": 2, "heads": 2, "parallel": False, "grouped": False, "kv_heads": None}
    stored = {
        "interpose": "scores",
        "version": "1",
        "units": json.dumps({"graph": graph}),
        "meta": "{}",
        "fields": "{}",
    }
    return {key: value for key, value in {**stored, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("tensor", "changes", "message"),
    [
        (torch.zeros(46), {"interpose": None}, "was not written by interpose. Expected scores written by save"),
        (torch.zeros(46), {"interpose": "circuit"}, r"holds circuit, not scores. Load it with Circuit.load\(...\)"),
        (torch.zeros(46), {"version": "9"}, "format version 9, but this interpose reads version 1"),
        (torch.zeros(46), {"units": "{]"}, "The header of .* is damaged"),
        (
            torch.zeros(46),
            {"units": json.dumps({"names": [1] * 46})},
            "The header of .* is damaged: .*names that are not text",
        ),
        (torch.zeros(46), {"units": '{"graph": {"layers": "2", "heads": 2, "kv_heads": null}}'}, "is damaged"),
        (torch.zeros(46), {"meta": "[1]"}, "The header of .* is damaged"),
        (torch.zeros(46), {"meta": None}, "The header of .* is damaged"),
        (torch.zeros(45), {}, r"The header of .* is damaged: .*46 units, but values of shape \[45\]"),
        (torch.zeros(46, 1), {}, r"is damaged: .*46 units, but values of shape \[46, 1\]"),
        (torch.zeros(46), {"units": '{"names": ["a", "b"]}'}, r"is damaged: .*2 units, but values of shape \[46\]"),
        (torch.zeros(46, dtype=torch.int64), {}, "is damaged: scores are stored as torch.int64, not as floats"),
    ],
)
def test_a_file_of_another_kind_is_named_for_what_it_is(tmp_path, tensor, changes, message: str) -> None:
    path = tmp_path / "s.safetensors"
    save_file({"scores": tensor}, path, metadata=header(**changes))
    with pytest.raises(SearchError, match=message):
        Scores.load(path)


def test_a_graph_too_large_to_be_true_costs_nothing(tmp_path) -> None:
    path = tmp_path / "s.safetensors"
    graph = {"layers": 10**9, "heads": 10**9, "parallel": False, "grouped": False, "kv_heads": None}
    save_file({"scores": torch.zeros(46)}, path, metadata=header(units=json.dumps({"graph": graph})))
    with pytest.raises(SearchError, match=r"is damaged: .* units, but values of shape \[46\]"):
        Scores.load(path)


def test_a_broken_or_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(SearchError, match=r"There is no file .*none.safetensors. Write a path that save\(\) returned"):
        Scores.load(tmp_path / "none.safetensors")
    (tmp_path / "s.safetensors").write_bytes(edge_scores().save(tmp_path / "whole").read_bytes()[:-9])
    with pytest.raises(SearchError, match="s.safetensors is not a whole safetensors file"):
        Scores.load(tmp_path / "s.safetensors")
    save_file({"other": torch.zeros(46)}, tmp_path / "o.safetensors", metadata=header())
    with pytest.raises(SearchError, match="o.safetensors is not a whole safetensors file"):
        Scores.load(tmp_path / "o.safetensors")
    circuit = tmp_path / "c.safetensors"
    save_file({"circuit": torch.zeros(46)}, circuit, metadata=header(interpose="circuit"))
    with pytest.raises(SearchError, match="is damaged: it lacks a mask, its budget, or whether it was pruned"):
        Circuit.load(circuit)


def test_a_circuit_can_be_grown_from_the_logits() -> None:
    from interpose.search.selection import greedy, prune

    graph = StreamGraph(2, 2)
    scores = Scores(torch.randn(graph.n_edges, generator=torch.Generator().manual_seed(0)), graph.edges)
    grown = scores.circuit(12, greedy=True, pruned=False)
    assert torch.equal(grown.mask, greedy(scores.values, 12, graph))
    assert grown.meta["greedy"] is True
    assert torch.equal(scores.circuit(12, greedy=True).mask, prune(grown.mask, graph))
    assert "greedy" not in scores.circuit(12).meta
    with pytest.raises(SearchError, match="Only edges have a graph"):
        Scores(torch.zeros(2), ("a0.h0", "a0.h1")).circuit(1, greedy=True)
