import time

import pytest
import torch
from hypothesis import given, strategies as st

from interpose.errors import SearchError
from interpose.models.stream import StreamGraph
from interpose.search.selection import greedy, nodes, prune, ranking, threshold, top_n

graphs = st.builds(StreamGraph, st.integers(1, 4), st.integers(1, 3), parallel=st.booleans()) | st.builds(
    lambda layers, kv_heads, share: StreamGraph(layers, kv_heads * share, grouped=True, kv_heads=kv_heads),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 2),
)


@st.composite
def circuits(draw: st.DrawFn) -> tuple[StreamGraph, torch.Tensor]:
    graph = draw(graphs)
    density = draw(st.sampled_from([0.02, 0.1, 0.3, 0.6, 0.95]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    return graph, torch.rand(graph.n_edges, generator=generator) < density


def pruned_step_by_step(names: set[str], group: int) -> set[str]:
    """The rule as it is stated, on names alone, repeated until nothing changes."""

    def nodes_of(reader: str) -> list[str]:
        place = reader.split("<")[0]
        if ".kv" not in place:
            return [place]
        layer, shared = place.split(".kv")
        return [f"{layer}.h{head}" for head in range(int(shared) * group, (int(shared) + 1) * group)]

    edges = {(name.split("->")[0], name.split("->")[1]) for name in names}
    while True:
        writing = {source for source, _ in edges}
        reading = {node for _, reader in edges for node in nodes_of(reader)} | {"input"}
        kept = (writing & reading) | {"logits"}
        left = {(u, v) for u, v in edges if u in kept and any(node in kept for node in nodes_of(v))}
        if left == edges:
            return {f"{u}->{v}" for u, v in edges}
        edges = left


def names_in(mask: torch.Tensor, graph: StreamGraph) -> set[str]:
    return {graph.edges[i] for i in mask.nonzero().flatten().tolist()}


@given(circuits())
def test_prune_does_what_repeating_its_rule_does(circuit: tuple[StreamGraph, torch.Tensor]) -> None:
    graph, mask = circuit
    group = graph.heads // graph.readers
    assert names_in(prune(mask, graph), graph) == pruned_step_by_step(names_in(mask, graph), group)


@given(circuits())
def test_prune_only_removes_and_twice_is_once(circuit: tuple[StreamGraph, torch.Tensor]) -> None:
    graph, mask = circuit
    before = mask.clone()
    once = prune(mask, graph)
    assert not (once & ~mask).any()
    assert prune(once, graph).equal(once)
    assert mask.equal(before), "the given mask is left as it was"


@given(circuits())
def test_every_node_of_a_pruned_circuit_lies_between_input_and_logits(circuit) -> None:
    graph, mask = circuit
    kept = prune(mask, graph)
    inside = {name for name, is_in in zip(graph.nodes, nodes(kept, graph).tolist(), strict=True) if is_in}
    writing = {name.split("->")[0] for name in names_in(kept, graph)}
    assert inside == writing | {"logits"}
    assert bool(kept.any()) == ("input" in inside)


@given(graphs)
def test_the_whole_graph_is_kept_whole(graph: StreamGraph) -> None:
    full = torch.ones(graph.n_edges, dtype=torch.bool)
    assert prune(full, graph).all()
    assert nodes(full, graph).all()
    assert not prune(~full, graph).any()


def test_prune_by_hand() -> None:
    graph = StreamGraph(2, 2)
    keep = ["input->a0.h0<v>", "a0.h0->a1.h1<q>", "a1.h1->logits"]
    lost = [
        "input->m0",  # m0 writes to nothing
        "input->a1.h0<k>",  # a1.h0 writes only to m1, which nothing reads
        "a1.h0->m1",
        "a0.h1->a1.h1<k>",  # a0.h1 reads nothing
    ]
    mask = torch.zeros(46, dtype=torch.bool)
    mask[[graph.edges.number(name) for name in keep + lost]] = True
    assert names_in(prune(mask, graph), graph) == set(keep)


def test_an_edge_from_input_to_logits_is_a_circuit() -> None:
    graph = StreamGraph(2, 2)
    mask = torch.zeros(46, dtype=torch.bool)
    mask[graph.edges.number("input->logits")] = True
    assert prune(mask, graph).equal(mask)


def test_one_query_of_a_group_keeps_the_shared_keys_it_reads() -> None:
    graph = StreamGraph(1, 4, grouped=True, kv_heads=2)
    mask = torch.zeros(graph.n_edges, dtype=torch.bool)
    for name in ("input->a0.kv1<k>", "input->a0.kv0<k>", "a0.h3->logits"):
        mask[graph.edges.number(name)] = True
    assert names_in(prune(mask, graph), graph) == {"input->a0.kv1<k>", "a0.h3->logits"}


def test_prune_refuses_a_mask_of_another_graph() -> None:
    with pytest.raises(SearchError, match="The mask has 3 entries, but this graph has 46 edges"):
        prune(torch.ones(3, dtype=torch.bool), StreamGraph(2, 2))


def test_prune_of_a_real_model_takes_milliseconds() -> None:
    graph = StreamGraph(30, 9)
    mask = torch.rand(graph.n_edges, generator=torch.Generator().manual_seed(0)) < 0.1
    prune(mask, graph)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        prune(mask, graph)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=30), st.booleans(), st.data())
def test_top_n_takes_the_best_and_of_equals_the_first(values: list[int], absolute: bool, data: st.DataObject) -> None:
    n = data.draw(st.integers(0, len(values)))
    scores = torch.tensor(values, dtype=torch.float32)
    expected = sorted(range(len(values)), key=lambda i: (-abs(values[i]) if absolute else -values[i], i))
    assert ranking(scores, absolute=absolute).tolist() == expected
    assert set(top_n(scores, n, absolute=absolute).nonzero().flatten().tolist()) == set(expected[:n])


def test_top_n_of_signed_scores_leaves_large_negative_ones() -> None:
    scores = torch.tensor([0.1, -5.0, 2.0, 0.0])
    assert top_n(scores, 2).tolist() == [True, False, True, False]
    assert top_n(scores, 2, absolute=True).tolist() == [False, True, True, False]


def test_ties_are_broken_by_number_in_a_large_table_too() -> None:
    values = torch.zeros(100_000)
    values[70_000] = 1.0
    assert top_n(values, 3).nonzero().flatten().tolist() == [0, 1, 70_000]


def test_top_of_everything_is_the_whole_graph() -> None:
    graph = StreamGraph(3, 2)
    values = torch.randn(graph.n_edges, generator=torch.Generator().manual_seed(0))
    assert prune(top_n(values, graph.n_edges), graph).all()


def test_threshold_takes_what_reaches_it() -> None:
    scores = torch.tensor([0.5, -2.0, 1.0, 0.49])
    assert threshold(scores, 0.5).tolist() == [True, False, True, False]
    assert threshold(scores, 1.0, absolute=True).tolist() == [False, True, True, False]


@pytest.mark.parametrize("n", [-1, 5])
def test_a_budget_that_cannot_be_spent_is_refused(n: int) -> None:
    with pytest.raises(SearchError, match=f"Cannot take the top {n} of 4 units. Write a number from 0 to 4."):
        top_n(torch.zeros(4), n)


@pytest.mark.parametrize("select", [lambda v: top_n(v, 1), lambda v: threshold(v, 0.0)])
def test_nan_has_no_rank(select) -> None:
    # Elsewhere a NaN score silently counts as selected.
    with pytest.raises(SearchError, match="1 scores are NaN and cannot be .*; the first is unit 2"):
        select(torch.tensor([1.0, 0.0, float("nan")]))


def test_greedy_grows_from_the_logits_by_hand() -> None:
    """input->m0 is the best of all, but comes into sight only when m0 is reached; a0.h0 never is, so its edges wait."""
    graph = StreamGraph(1, 1)
    named = {
        "input->a0.h0<q>": 8.0,
        "input->a0.h0<k>": 7.0,
        "input->a0.h0<v>": 6.0,
        "input->m0": 9.0,
        "a0.h0->m0": 5.0,
        "input->logits": 0.5,
        "a0.h0->logits": 0.4,
        "m0->logits": 1.0,
    }
    values = torch.tensor([named[name] for name in graph.edges])
    order = ["m0->logits", "input->m0", "a0.h0->m0", "input->a0.h0<q>", "input->a0.h0<k>", "input->a0.h0<v>"]
    order += ["input->logits", "a0.h0->logits"]
    for n in range(len(order) + 1):
        assert names_in(greedy(values, n, graph), graph) == set(order[:n])
    assert names_in(top_n(values, 3), graph) == {"input->m0", "input->a0.h0<q>", "input->a0.h0<k>"}
    negative = torch.where(torch.tensor([name == "m0->logits" for name in graph.edges]), -values, values)
    assert names_in(greedy(negative, 1, graph), graph) == {"input->logits"}
    assert names_in(greedy(negative, 1, graph, absolute=True), graph) == {"m0->logits"}


@given(graphs, st.integers(0, 2**32), st.booleans(), st.data())
def test_greedy_does_what_looking_at_all_candidates_does(
    graph: StreamGraph, seed: int, absolute: bool, data: st.DataObject
) -> None:
    values = torch.randint(-3, 4, (graph.n_edges,), generator=torch.Generator().manual_seed(seed)).float()
    n = data.draw(st.integers(0, graph.n_edges))
    size = (values.abs() if absolute else values).tolist()
    inside, taken = {"logits"}, set[int]()
    for _ in range(n):
        candidates = [
            (-size[number], number, source)
            for number in set(range(graph.n_edges)) - taken
            for source, row in [graph.edge(number)]
            if row == graph.n_destinations - 1 or any(graph.nodes[node] in inside for node in graph.inputs[row].nodes)
        ]
        _, number, source = min(candidates)
        taken.add(number)
        inside.add(graph.sources[source])
    assert set(greedy(values, n, graph, absolute=absolute).nonzero().flatten().tolist()) == taken


def test_greedy_refuses_what_it_cannot_take() -> None:
    graph = StreamGraph(1, 1)
    for n in (-1, 9):
        with pytest.raises(SearchError) as failure:
            greedy(torch.zeros(8), n, graph)
        assert str(failure.value) == f"Cannot take {n} of 8 edges. Write a number from 0 to 8."
    with pytest.raises(SearchError) as failure:
        greedy(torch.zeros(7), 2, graph)
    assert str(failure.value) == "There are 7 scores, but this graph has 8 edges."
    with pytest.raises(SearchError, match="cannot be ranked"):
        greedy(torch.tensor([0.0] * 7 + [float("nan")]), 2, graph)


def test_greedy_on_a_real_model_takes_seconds_at_most() -> None:
    graph = StreamGraph(12, 12)
    values = torch.randn(graph.n_edges, generator=torch.Generator().manual_seed(0))
    started = time.process_time()
    mask = greedy(values, graph.n_edges, graph)
    assert bool(mask.all())
    assert time.process_time() - started < 5
