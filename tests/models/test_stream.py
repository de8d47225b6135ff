import subprocess
import sys

import pytest
from hypothesis import given, strategies as st

from interpose.errors import SearchError, SiteError
from interpose.models.stream import StreamGraph

graphs = st.builds(StreamGraph, st.integers(1, 5), st.integers(1, 5), parallel=st.booleans()) | st.builds(
    lambda layers, kv_heads, share, parallel: StreamGraph(layers, kv_heads * share, parallel, True, kv_heads),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
)


@pytest.mark.parametrize(
    ("layers", "heads", "edges"),
    [
        pytest.param(2, 2, 46, id="toy"),
        pytest.param(6, 4, 1_108, id="interpbench"),
        pytest.param(12, 12, 32_491, id="gpt2-small"),
        pytest.param(24, 14, 179_749, id="qwen2.5-0.5b"),
        pytest.param(26, 8, 74_218, id="gemma-2-2b"),
        pytest.param(30, 9, 123_211, id="smollm2-135m"),
        pytest.param(32, 32, 1_592_881, id="llama-3.1-8b"),
    ],
)
def test_edges_are_counted_as_mib_counts_them(layers: int, heads: int, edges: int) -> None:
    assert StreamGraph(layers, heads).n_edges == edges


def written_out(graph: StreamGraph) -> list[str]:
    """Every edge from the definition alone: a writer, then a reader further down."""
    names, writers = [], ["input"]
    group = graph.heads // graph.kv_heads if graph.grouped else 1
    for layer in range(graph.layers):
        heads = [f"a{layer}.h{h}" for h in range(graph.heads)]
        readers = heads if not graph.grouped else [f"a{layer}.kv{h}" for h in range(graph.heads // group)]
        names += [f"{u}->{h}<q>" for h in heads for u in writers]
        names += [f"{u}->{h}<{kind}>" for kind in "kv" for h in readers for u in writers]
        names += [f"{u}->m{layer}" for u in (writers if graph.parallel else writers + heads)]
        writers = [*writers, *heads, f"m{layer}"]
    return names + [f"{u}->logits" for u in writers]


@given(graphs)
def test_edges_are_every_writer_to_every_reader_below_it(graph: StreamGraph) -> None:
    expected = written_out(graph)
    assert list(graph.edges) == expected
    assert len(graph.edges) == graph.n_edges == len(expected)
    assert [graph.edges[i] for i in range(len(expected))] == expected


@given(graphs, st.data())
def test_number_and_ends_of_an_edge_lead_to_each_other(graph: StreamGraph, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, graph.n_edges - 1))
    source, destination = graph.edge(number)
    assert source < graph.upstream(destination)
    assert graph.edge_number(source, destination) == number
    assert graph.edges.number(graph.edges[number]) == number
    assert graph.edges[number - graph.n_edges] == graph.edges[number]


@given(graphs)
def test_groups_cut_the_edges_by_kind_and_layer(graph: StreamGraph) -> None:
    for group in graph.groups:
        ends = [graph.inputs[graph.edge(i)[1]] for i in range(group.start, group.stop)]
        assert {(end.kind, end.layer) for end in ends} == {(group.kind, group.layer)}
    assert [g.start for g in graph.groups] == [0, *(g.stop for g in graph.groups[:-1])]
    assert graph.groups[-1].stop == graph.n_edges
    assert len(graph.groups) == 4 * graph.layers + 1


def test_sources_and_destinations_stand_in_mib_order() -> None:
    graph = StreamGraph(2, 2)
    assert graph.sources == ("input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1")
    assert graph.destinations[:7] == ("a0.h0<q>", "a0.h1<q>", "a0.h0<k>", "a0.h1<k>", "a0.h0<v>", "a0.h1<v>", "m0")
    assert graph.destinations[-2:] == ("m1", "logits")
    assert graph.n_sources == len(graph.sources) == 7
    assert graph.n_destinations == len(graph.destinations) == 15
    assert graph.nodes == (*graph.sources, "logits")
    assert [graph.sources[graph.head(1, 1)], graph.sources[graph.mlp(1)]] == ["a1.h1", "m1"]


def test_heads_of_a_parallel_block_do_not_feed_its_mlp() -> None:
    assert "a1.h0->m1" in StreamGraph(2, 2).edges
    assert "a1.h0->m1" not in StreamGraph(2, 2, parallel=True).edges
    assert "a0.h0->m1" in StreamGraph(2, 2, parallel=True).edges
    assert StreamGraph(2, 2, parallel=True).n_edges == 46 - 2 * 2


def test_grouped_edges_share_keys_and_values() -> None:
    graph = StreamGraph(30, 9, grouped=True, kv_heads=3)
    assert graph.n_edges == sum((9 + 3 + 3) * (1 + 10 * i) + (10 + 10 * i) for i in range(30)) + 301
    shared = graph.inputs[graph.destination_number("a4.kv1<v>")]
    assert [graph.sources[node] for node in shared.nodes] == ["a4.h3", "a4.h4", "a4.h5"]


def test_equal_graphs_are_equal_whatever_the_unused_grouping() -> None:
    assert StreamGraph(2, 4, kv_heads=2) == StreamGraph(2, 4)
    assert StreamGraph(2, 4).edges == StreamGraph(2, 4).edges
    assert StreamGraph(2, 4).edges != StreamGraph(2, 4, parallel=True).edges


def test_edge_names_are_a_sequence_that_prints_short() -> None:
    edges = StreamGraph(30, 9).edges
    assert repr(edges) == "EdgeNames(123,211 edges, input->a0.h0<q> to m29->logits)"
    assert edges[:2] == ("input->a0.h0<q>", "input->a0.h1<q>")
    assert 3 not in edges
    with pytest.raises(IndexError):
        edges[123_211]
    with pytest.raises(IndexError):
        edges[-123_212]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("m0", "'m0' is not the name of an edge. Write it as 'a0.h1->m2' or 'a0.h1->a3.h2<q>'."),
        ("a0.h7->logits", "This model has no source 'a0.h7'. The nearest are: a0.h"),
        ("m0->a1.h1", "This model has no destination 'a1.h1'. The nearest are: a1.h1<"),
        ("m1->m0", "There is no edge m1->m0: a source must lie upstream of its destination."),
    ],
)
def test_an_unknown_edge_is_named_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(SiteError) as error:
        StreamGraph(2, 2).edges.number(name)
    assert str(error.value).startswith(message)


def test_impossible_graphs_are_refused() -> None:
    with pytest.raises(SearchError, match="at least one layer and one head, but got 0 layers and 2 heads"):
        StreamGraph(0, 2)
    with pytest.raises(
        SearchError, match=r"divides the 9 heads, but kv_heads is None. Write StreamGraph\(\.\.\., grou"
    ):
        StreamGraph(2, 9, grouped=True)
    with pytest.raises(SearchError, match="kv_heads is 4"):
        StreamGraph(2, 9, grouped=True, kv_heads=4)


def test_the_graph_needs_no_torch() -> None:
    code = "import sys, interpose.models.stream as s; len(s.StreamGraph(30, 9).edges); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
