"""Searches on an edited model: the same as on a network whose weights do what the edit does."""

import copy
from collections.abc import Callable

import pytest
import torch

import interpose as ip
from interpose.mediators import Edges
from interpose.search.edge_patching import EdgePatching
from interpose.search.scores import Scores
from interpose.tasks.base import Pairs

WIDTH_OF_HEAD = 6


@pytest.fixture
def both(make: Callable[..., ip.Model]) -> tuple[ip.Model, ip.Model]:
    """A model with an edit, and one with other weights: half of the first MLP, and nothing of one head."""
    model = make("llama")
    with model.trace(torch.tensor([[1, 2, 3]]), run=False) as t:
        model.layers[0].mlp.output *= 0.5
        model.layers[1].attn.z[:, :, 2] = 0
    network = copy.deepcopy(model.network)
    layers = network.model.layers
    with torch.no_grad():
        layers[0].mlp.down_proj.weight *= 0.5
        layers[1].self_attn.o_proj.weight[:, 2 * WIDTH_OF_HEAD : 3 * WIDTH_OF_HEAD] = 0
    return model.edited(t), ip.wrap(network)


def same(a: Scores, b: Scores) -> bool:
    close = torch.allclose(a.values, b.values, atol=1e-5 * max(1.0, float(b.values.abs().max())))
    return list(a.units) == list(b.units) and close and float(b.values.abs().max()) > 1e-2


@pytest.mark.parametrize(
    ("method", "mediators"),
    [
        (ip.methods.ActivationPatching(), ip.mediators.MLPs()),
        (ip.methods.ActivationPatching(), ip.mediators.Heads()),
        (ip.methods.EAPIG(steps=2), Edges()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_scores_are_those_of_the_weights_that_do_the_same(
    both: tuple[ip.Model, ip.Model], pairs: Pairs, method: ip.methods.ActivationPatching, mediators: Edges
) -> None:
    edited, changed = (method.score(model, pairs, mediators) for model in both)
    assert same(edited, changed)
    assert edited.meta["model"] != changed.meta["model"]


def test_circuits_run_as_on_the_weights_that_do_the_same(both: tuple[ip.Model, ip.Model], pairs: Pairs) -> None:
    n = Edges().graph(both[0]).n_edges
    masks = torch.rand(4, n, generator=torch.manual_seed(0)) < torch.tensor([[0.0], [0.4], [0.8], [1.1]])
    edited, changed = (torch.stack([*EdgePatching(model, pairs)(masks)]) for model in both)
    assert torch.allclose(edited, changed, atol=1e-4)
    assert (edited[0] - edited[3]).abs().max() > 1e-2


def test_a_circuit_is_an_edit_of_an_edited_model(both: tuple[ip.Model, ip.Model], even: Pairs) -> None:
    ids = even.clean_tokens
    circuit = ip.methods.EAP().score(both[0], even, Edges()).circuit(40)
    logits = []
    for model in both:
        only = model.edited(circuit.edit(model, circuit.mean(model, even.corrupt_batch())))
        with only.trace(ids):
            logits.append(only.logits.save())
    assert torch.allclose(*logits, atol=1e-4)
