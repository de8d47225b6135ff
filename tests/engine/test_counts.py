"""Passes are counted as the network itself would count them: by how often it looks its tokens up."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.engine.counts import Counts
from interpose.tasks.base import Pairs


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever any network looks up embeddings of whole prompts."""
    seen: list[int] = []
    stock = torch.nn.functional.embedding

    def embedding(*args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(1)
        return stock(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "embedding", embedding)
    return seen


def test_a_block_is_one_pass_a_world_and_one_a_derivative(
    model: ip.Model, ids: torch.Tensor, looked_up: list[int]
) -> None:
    counts = model.backend.counts
    before = counts.forward, counts.backward
    with model.trace() as t:
        with t.world("a", ids):
            number = model.logits.sum()
            ip.grad(number, model.layers[0].output).save("g")
        with t.world("b", ids):
            model.layers[0].output.save("h")
    looked_up_by_both = len(looked_up)
    assert looked_up_by_both == counts.forward - before[0] == 2
    assert counts.backward - before[1] == 1


def test_edge_attribution_is_two_forward_passes_and_one_backward(
    model: ip.Model, ids: torch.Tensor, looked_up: list[int]
) -> None:
    """The norms are differentiated layer by layer too, which is no pass."""
    texts, mask = ("a", "b"), torch.ones_like(ids, dtype=torch.bool)
    pairs = Pairs(texts, texts, ids, ids.flip(0), mask, torch.tensor([4, 5]), torch.tensor([6, 7]))
    counts = model.backend.counts
    before = counts.forward, counts.backward
    ip.methods.EAP().score(model, pairs, ip.mediators.Edges())
    assert (counts.forward - before[0], counts.backward - before[1]) == (2, 1)
    assert len(looked_up) == 2


def test_a_derivative_by_an_input_that_the_run_was_given_is_a_pass(model: ip.Model, ids: torch.Tensor) -> None:
    before = model.backend.counts.backward
    with model.trace() as t:
        scale = t.input("scale", torch.tensor(0.5))
        with t.world("main", ids):
            model.layers[0].output *= scale
            ip.grad(model.logits.sum(), scale).save("g")
    assert model.backend.counts.backward - before == 1


def test_runs_that_go_together_are_one_pass(
    model: ip.Model, ids: torch.Tensor, looked_up: list[int], passes: list[int]
) -> None:
    graphs, feeds = [], []
    for position in range(5):
        with model.trace(run=False) as t, t.world("main", ids):
            model.layers[1].output[:, position] = 0
            model.logits[:, -1].save("m")
        graphs.append(t.graph)
        feeds.append(t.feed)
    before = model.backend.counts.forward
    assert len(list(model.backend.run_many(graphs, feeds))) == 5
    made = model.backend.counts.forward - before
    assert made == len(looked_up) == len(passes) + 1  # the unchanged run, and the passes of the others
    assert made < 5


def test_each_step_of_a_generation_is_a_pass(model: ip.Model, ids: torch.Tensor) -> None:
    before = model.backend.counts.forward
    with model.generate(ids, max_new_tokens=3) as t, t.steps():
        model.logits[:, -1].save("m")
    assert model.backend.counts.forward - before == 3


def test_an_edited_model_counts_with_the_model_it_is_a_view_of(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids, run=False) as t:
        model.layers[0].output[:] = 0
    edited = model.edited(t)
    assert edited.backend.counts is model.backend.counts


def test_threads_lose_no_count() -> None:
    counts = Counts()
    with ThreadPoolExecutor(8) as threads:
        for _ in range(4000):
            threads.submit(counts.one_forward)
            threads.submit(counts.one_backward)
    assert (counts.forward, counts.backward) == (4000, 4000)
    assert repr(counts) == "Counts(forward=4000, backward=4000)"
