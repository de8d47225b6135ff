import pytest
import torch
from hypothesis import given, strategies as st

from interpose.benchmark.controls import CONTROLS, draw_seed, shuffled, uniform
from interpose.benchmark.grid import budgets
from interpose.models.stream import StreamGraph
from interpose.search.selection import top_n

graphs = st.builds(StreamGraph, st.integers(1, 5), st.integers(1, 4), parallel=st.booleans())
seeds = st.integers(0, 2**32)


def nested(graph: StreamGraph, seed: int) -> torch.Tensor:
    """Circuits of the ten sizes, with many ties among the scores."""
    values = torch.randint(0, 4, (graph.n_edges,), generator=torch.Generator().manual_seed(seed)).float()
    return torch.stack([top_n(values, n) for n in budgets(graph.n_edges)])


def by_group(masks: torch.Tensor, graph: StreamGraph) -> list[list[int]]:
    return [masks[:, group.start : group.stop].sum(-1).tolist() for group in graph.groups]


@pytest.mark.parametrize("name", ["uniform", "shuffled"])
@given(graph=graphs, seed=seeds)
def test_a_control_has_as_many_edges_and_its_circuits_are_nested(name: str, graph: StreamGraph, seed: int) -> None:
    masks = nested(graph, seed)
    control = CONTROLS[name](masks, graph, seed)
    assert control.sum(-1).tolist() == masks.sum(-1).tolist() == list(budgets(graph.n_edges))
    assert not (control[:-1] & ~control[1:]).any()


@given(graphs, seeds)
def test_shuffled_keeps_the_edges_into_each_kind_and_layer(graph: StreamGraph, seed: int) -> None:
    masks = nested(graph, seed)
    assert by_group(shuffled(masks, graph, seed), graph) == by_group(masks, graph)


@given(graphs, seeds)
def test_shuffled_masks_are_the_circuits_of_shuffled_scores(graph: StreamGraph, seed: int) -> None:
    values = torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(seed)).float()
    # The shuffle of scores is read off from where single edges go.
    moved = shuffled(torch.eye(graph.n_edges).bool(), graph, seed).float()
    masks = torch.stack([top_n(values, n) for n in budgets(graph.n_edges)])
    expected = torch.stack([top_n(values @ moved, n) for n in budgets(graph.n_edges)])
    assert shuffled(masks, graph, seed).equal(expected)


def test_uniform_takes_every_edge_equally_often() -> None:
    graph = StreamGraph(2, 2)
    masks = torch.zeros(1, 46, dtype=torch.bool)
    masks[0, :23] = True
    times = sum(uniform(masks, graph, seed).float() for seed in range(2000))
    # Each edge is in about 1000 of 2000 draws; five standard deviations are 112.
    assert (times - 1000).abs().max() < 112


def test_draws_repeat_by_seed_and_differ_by_purpose_and_number() -> None:
    graph, masks = StreamGraph(3, 3), nested(StreamGraph(3, 3), 0)
    made = {draw_seed(seed, name, draw) for seed in (0, 1) for name in CONTROLS for draw in range(5)}
    assert len(made) == 20
    for control in CONTROLS.values():
        again = [control(masks, graph, draw_seed(0, "uniform", draw)) for draw in (0, 0, 1)]
        assert again[0].equal(again[1])
        assert not again[0].equal(again[2])
