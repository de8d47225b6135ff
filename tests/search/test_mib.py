"""Files of the MIB circuit track: written by hand here as its own code writes them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st

from interpose.errors import SearchError
from interpose.models.stream import StreamGraph
from interpose.search import Circuit, Scores
from interpose.search.mib import MIBFile, read_mib, write_mib

CFG = {"n_layers": 1, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 3}
SOURCES = ["input", "a0.h0", "a0.h1", "m0"]
DESTINATIONS = ["a0.h0<q>", "a0.h1<q>", "a0.h0<k>", "a0.h1<k>", "a0.h0<v>", "a0.h1<v>", "m0", "logits"]
# In the order in which MIB lists them: source by source, and q, k, v of a head one after the other.
EDGES = {
    "input->a0.h0<q>": 0.5,
    "input->a0.h0<k>": -0.25,
    "input->a0.h0<v>": 1.0,
    "input->a0.h1<q>": 0.125,
    "input->a0.h1<k>": 0.0,
    "input->a0.h1<v>": -2.0,
    "input->m0": 3.0,
    "a0.h0->m0": 4.0,
    "a0.h1->m0": -5.0,
    "input->logits": 6.0,
    "a0.h0->logits": 7.0,
    "a0.h1->logits": -8.0,
    "m0->logits": 9.0,
}
KEPT = {"input->a0.h0<v>", "a0.h0->logits", "input->logits"}


def as_json() -> dict[str, Any]:
    edges = {name: {"score": score, "in_graph": name in KEPT} for name, score in EDGES.items()}
    nodes = {name: {"in_graph": name in ("input", "a0.h0", "logits")} for name in [*SOURCES, "logits"]}
    return {"cfg": dict(CFG), "nodes": nodes, "edges": edges}


def as_tables() -> dict[str, Any]:
    scores, kept = torch.zeros(4, 8), torch.zeros(4, 8, dtype=torch.bool)
    for name, score in EDGES.items():
        source, destination = name.split("->")
        scores[SOURCES.index(source), DESTINATIONS.index(destination)] = score
        kept[SOURCES.index(source), DESTINATIONS.index(destination)] = name in KEPT
    nodes = torch.tensor([True, True, False, False])
    tables = {"edges_scores": scores, "edges_in_graph": kept, "nodes_in_graph": nodes}
    return {"cfg": dict(CFG), "src_nodes": SOURCES, "dst_nodes": DESTINATIONS, **tables}


def store(path: Path, content: Any) -> Path:
    if path.suffix == ".pt":
        torch.save(content, path)
    else:
        path.write_text(json.dumps(content))
    return path


@pytest.fixture(params=[".json", ".pt"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same graph as one file of either kind."""
    return store(tmp_path / f"graph{request.param}", as_tables() if request.param == ".pt" else as_json())


def test_every_edge_keeps_its_score_and_place(file: Path) -> None:
    found = read_mib(file)
    assert {name: found.scores[name] for name in EDGES} == EDGES
    assert set(found.circuit.names()) == KEPT
    assert found.width == 3
    assert found.scores.graph == StreamGraph(1, 2)
    assert (found.nodes, found.neurons, found.neurons_kept) == (None, None, None)
    assert found.weighted_edge_count == 3.0
    assert found.scores.meta["from"] == file.name


def test_a_file_whose_positive_scores_hurt_is_turned_round(file: Path) -> None:
    found = read_mib(file, sign="hurts")
    assert {name: -found.scores[name] for name in EDGES} == EDGES
    assert set(found.circuit.names()) == KEPT
    assert found.scores.meta["positive_in_file"] == "hurts"
    with pytest.raises(SearchError) as failure:
        read_mib(file, sign="maybe")
    assert str(failure.value) == "A positive score either 'helps' or 'hurts', but sign is 'maybe'."


@pytest.mark.parametrize("ending", [".json", ".pt"])
def test_scores_of_nodes_and_neurons_come_along(ending: str, tmp_path: Path) -> None:
    neurons = [[0.5, -1.0, 2.0], [0.0, 1.0, 0.0], [float("nan")] * 3, [1.0, 1.0, 1.0]]
    kept = [[True, False, True], [True, True, True], [False, False, True], [True, False, False]]
    if ending == ".json":
        content = as_json()
        for i, name in enumerate(SOURCES):
            content["nodes"][name] |= {"score": float(i), "neurons": kept[i], "neurons_scores": neurons[i]}
        del content["nodes"]["m0"]["score"]
    else:
        nodes = torch.tensor([0.0, 1.0, 2.0, float("nan")])
        more = {"nodes_scores": nodes, "neurons_scores": torch.tensor(neurons), "neurons_in_graph": torch.tensor(kept)}
        content = as_tables() | more
    found = read_mib(store(tmp_path / f"graph{ending}", content))
    assert found.nodes is not None
    assert found.neurons is not None
    # What MIB leaves unscored it always keeps.
    assert found.nodes.tolist() == [0.0, 1.0, 2.0, float("inf")]
    assert found.neurons[2].tolist() == [float("inf")] * 3
    # input->a0.h0<v> and input->logits count 2/3 each, a0.h0->logits counts whole.
    assert found.weighted_edge_count == pytest.approx(2 / 3 + 2 / 3 + 1)
    turned = read_mib(tmp_path / f"graph{ending}", sign="hurts")
    assert turned.nodes is not None
    assert turned.nodes.tolist() == [0.0, -1.0, -2.0, float("inf")]


@pytest.mark.parametrize("ending", [".json", ".pt"])
@given(layers=st.integers(1, 3), heads=st.integers(1, 4), parallel=st.booleans(), seed=st.integers(0, 99))
def test_what_is_written_is_read_back(
    ending: str, layers: int, heads: int, parallel: bool, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    graph, random = StreamGraph(layers, heads, parallel=parallel), torch.Generator().manual_seed(seed)
    scores = Scores(torch.randn(graph.n_edges, generator=random), graph.edges)
    circuit = scores.circuit(graph.n_edges // 3)
    path = tmp_path_factory.mktemp("mib") / f"graph{ending}"
    found = read_mib(write_mib(path, scores, 16, circuit))
    assert torch.equal(found.scores.values, scores.values)
    assert torch.equal(found.circuit.mask, circuit.mask)
    assert (found.width, found.scores.graph) == (16, graph)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_is_written_is_what_mib_writes(tmp_path: Path) -> None:
    found = read_mib(store(tmp_path / "theirs.json", as_json()))
    own = json.loads(write_mib(tmp_path / "ours.json", found.scores, found.width, found.circuit).read_text())
    assert own == as_json()
    tables = torch.load(write_mib(tmp_path / "ours.pt", found.scores, 3, found.circuit), weights_only=True)
    for key, value in as_tables().items():
        assert torch.equal(tables[key], value) if isinstance(value, torch.Tensor) else tables[key] == value


class Danger:
    """What a malicious file may hold."""

    def __reduce__(self) -> Any:
        return os.system, ("touch danger",)


def test_nothing_in_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(as_tables() | {"more": Danger()}, tmp_path / "saved.pt")
    (tmp_path / "bare.pt").write_bytes(b"cos\nsystem\n(S'touch danger'\ntR.")
    for name in ("saved.pt", "bare.pt"):
        with pytest.raises(SearchError, match="anything else in such a file could run code, so it is not read"):
            read_mib(tmp_path / name)
    assert not (tmp_path / "danger").exists()


def broken(change: Any) -> dict[str, Any]:
    content = as_json()
    change(content)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not the parts of a graph by name"),
        (broken(lambda c: c.pop("edges")), "is not a file of the MIB circuit track: it has no 'edges'"),
        # An edge that is missing must not count as found or as worthless: it has no place in a ranking.
        (broken(lambda c: c["edges"].pop("input->m0")), "it has 12 edges, but its configuration 13"),
        (broken(lambda c: c["edges"].update({"a0.h0->a0.h1<q>": c["edges"].pop("input->m0")})), "There is no edge"),
        (broken(lambda c: c["edges"]["input->m0"].update(score="3")), "the score of input->m0 is '3'"),
        (broken(lambda c: c["edges"]["input->m0"].update(in_graph=1)), "in_graph of input->m0 is 1"),
        (broken(lambda c: c["edges"]["input->m0"].update(score=float("nan"))), "The score of input->m0 is NaN"),
        (broken(lambda c: c["edges"].update({"input->m0": 3})), "is damaged"),
        (broken(lambda c: c["cfg"].update(n_layers=10**9)), r"d_model of \[1000000000, 2, 3\]"),
        (broken(lambda c: c["cfg"].update(parallel_attn_mlp="no")), "parallel_attn_mlp is 'no'"),
        (broken(lambda c: c["nodes"].pop("m0")), "is damaged: 'm0'"),
        (broken(lambda c: c["nodes"]["m0"].update(neurons=[True])), "is damaged"),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=message):
        read_mib(store(tmp_path / "graph.json", content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"src_nodes": ["input"]}, "src_nodes are not those of its configuration, from input to m0"),
        ({"edges_scores": torch.zeros(3, 3)}, r"edges_scores has shape \[3, 3\], not \[4, 8\]"),
        ({"neurons_scores": torch.zeros(4, 2)}, r"its neurons are \[2\] a node, but d_model is 3"),
        ({"edges_in_graph": None}, "is damaged"),
    ],
)
def test_damaged_tables_are_refused_with_the_reason(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=message):
        read_mib(store(tmp_path / "graph.pt", as_tables() | change))


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SearchError, match="There is no file"):
        read_mib(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"cfg"')
    with pytest.raises(SearchError, match="is not JSON"):
        read_mib(tmp_path / "half.json")
    with pytest.raises(SearchError, match=r"ends neither in .json nor in .pt"):
        read_mib(tmp_path / "graph.pkl")
    monkeypatch.setattr("interpose.search.mib.LARGEST", 3)
    with pytest.raises(SearchError, match="has 6 bytes; files of up to 3 are read"):
        read_mib(tmp_path / "half.json")


def test_what_mib_cannot_say_is_not_written(tmp_path: Path) -> None:
    grouped = StreamGraph(1, 4, grouped=True, kv_heads=2)
    scores = Scores(torch.zeros(grouped.n_edges), grouped.edges)
    with pytest.raises(SearchError, match="MIB counts keys and values once a query head"):
        write_mib(tmp_path / "graph.json", scores, 8)
    plain, other = StreamGraph(1, 2), StreamGraph(1, 3)
    scores = Scores(torch.zeros(plain.n_edges), plain.edges)
    with pytest.raises(SearchError, match="ends neither in"):
        write_mib(tmp_path / "graph.csv", scores, 8)
    with pytest.raises(SearchError, match="There is no folder"):
        write_mib(tmp_path / "none" / "graph.json", scores, 8)
    with pytest.raises(SearchError, match="The circuit is of"):
        write_mib(tmp_path / "graph.pt", scores, 8, Circuit(torch.ones(other.n_edges).bool(), other.edges, 0))
    assert list(tmp_path.iterdir()) == []
    assert isinstance(read_mib(write_mib(tmp_path / "empty.json", scores, 8)), MIBFile)
