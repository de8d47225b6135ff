"""Models written by hand: their circuit is what the card says, edge by edge, and nothing else matters."""

import pytest
import torch

import interpose as ip
from interpose import discovery
from interpose.benchmark.truth import mask_of
from interpose.loading.cards import cards
from interpose.search.behaviour import behaviour
from interpose.search.edge_patching import EdgePatching
from interpose.tasks.base import Pairs, Task

BY_HAND = [name for name, card in cards().items() if card.made is not None and card.made.steps == 0]
Case = tuple[ip.Model, Task, Pairs, tuple[str, ...]]


@pytest.fixture(scope="module", params=BY_HAND)
def case(request: pytest.FixtureRequest) -> Case:
    """A model, its task, pairs of it, and the true edges."""
    card = cards()[request.param]
    assert card.truth is not None
    model, task = ip.load(request.param), discovery.load("interpose.tasks", card.task)()
    return model, task, task.pairs(model, n=24, seed=7, split="validation"), card.truth.edges


def test_the_model_is_always_right(case: Case) -> None:
    model, task, pairs, _ = case
    accuracy = task.accuracy(model, pairs)
    assert accuracy.prefers.value == accuracy.first.value == 1


def test_the_true_edges_alone_do_what_the_model_does(case: Case) -> None:
    model, _, pairs, edges = case
    patching = EdgePatching(model, pairs)
    (kept,) = patching(mask_of(edges, patching.graph)[None])
    clean = behaviour(model, pairs)["clean"]
    assert float(clean.min()) > 5
    torch.testing.assert_close(kept, clean, rtol=0, atol=2e-3)


def test_without_any_one_true_edge_the_behaviour_is_gone_in_every_pair(case: Case) -> None:
    model, _, pairs, edges = case
    patching = EdgePatching(model, pairs)
    masks = torch.ones(len(edges), patching.graph.n_edges, dtype=torch.bool)
    for row, edge in enumerate(edges):
        masks[row, patching.graph.edges.number(edge)] = False
    clean = behaviour(model, pairs)["clean"]
    for edge, cut in zip(edges, patching(masks), strict=True):
        assert bool((cut < 0.5 * clean).all()), edge


def test_without_one_other_edge_nothing_changes(case: Case) -> None:
    model, _, pairs, edges = case
    patching = EdgePatching(model, pairs[:3])
    others = (~mask_of(edges, patching.graph)).nonzero()[::5, 0]
    masks = torch.ones(len(others), patching.graph.n_edges, dtype=torch.bool)
    masks[torch.arange(len(others)), others] = False
    clean = behaviour(model, pairs[:3])["clean"]
    for cut in patching(masks):
        torch.testing.assert_close(cut, clean, rtol=0, atol=2e-3)
    assert len(others) > 2 * len(edges)


def test_the_idle_parts_do_something_and_the_norms_change_nothing(case: Case) -> None:
    model, _, pairs, _ = case
    with model.trace(pairs.clean_batch()):
        results = [layer.attn.result.save() for layer in model.layers]
        outputs = [layer.mlp.output.save() for layer in model.layers]
        streams = [layer.mid.save() for layer in model.layers]
        normed = [layer.mlp.input.save() for layer in model.layers]
    for result, output in zip(results, outputs, strict=True):
        assert float(result.abs().amax((0, 1, 3)).min()) > 0.01
        assert float(output.abs().max()) > 0.01
    for stream, read in zip(streams, normed, strict=True):
        torch.testing.assert_close(read[..., :-2], stream[..., :-2], rtol=1e-5, atol=2e-5)
        assert float(read[..., -2:].abs().max()) == 0  # the constant is not read
