"""Circuits of edges against a forward pass by hand in which every head has its own input stream."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.benchmark import Proof, ProofSettings, prove
from interpose.errors import SearchError
from interpose.mediators import Edges
from interpose.search import Scores
from interpose.search.behaviour import behaviour
from interpose.search.edge_patching import EdgePatching
from interpose.tasks.base import Pairs

Make = Callable[..., ip.Model]
Circuits = Callable[..., torch.Tensor]


def tolerance(model: ip.Model, pairs: Pairs) -> float:
    """Design section 6: 1e-5 times the largest logit, and at least 1e-5."""
    with torch.no_grad():
        return 1e-5 * max(1.0, float(model.network(**pairs.clean_batch().kwargs).logits.abs().max()))


def ends(count: int) -> torch.Tensor:
    """The whole graph, and none of it."""
    return torch.stack([torch.ones(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)])


def without(names: list[str], patching: EdgePatching) -> torch.Tensor:
    """For each name, the whole graph less that edge."""
    count = patching.graph.n_edges
    masks = torch.ones(len(names), count, dtype=torch.bool)
    masks[range(len(names)), [patching.graph.edges.number(name) for name in names]] = False
    return masks


@pytest.fixture
def by_hand(split: Any, difference: Any) -> Circuits:
    """Circuits run by hand: row i is the behaviour of every pair with the edges outside mask i cut."""

    def run(variant: str, model: ip.Model, pairs: Pairs, masks: torch.Tensor, names: Any) -> torch.Tensor:
        corrupt = split(variant, model.network)
        corrupt.run(pairs.corrupt_batch().kwargs)
        rows = []
        for mask in masks:
            cut = {names[int(edge)] for edge in (~mask).nonzero()}
            circuit = split(variant, model.network, cut, corrupt.now)
            rows.append(difference(circuit.run(pairs.clean_batch().kwargs), pairs))
        return torch.stack(rows)

    return run


def test_the_whole_graph_is_the_clean_run_and_none_of_it_the_corrupt_run(
    variant: str, make: Make, pairs: Pairs
) -> None:
    model = make(variant)
    patching = EdgePatching(model, pairs)
    whole, nothing = patching(ends(patching.graph.n_edges))
    rows, found = torch.arange(len(pairs)), {}
    for side, batch in (("clean", pairs.clean_batch()), ("corrupt", pairs.corrupt_batch())):
        with torch.no_grad():
            logits = model.network(**batch.kwargs).logits[:, -1]
        found[side] = logits[rows, pairs.answers] - logits[rows, pairs.wrong]
    assert (found["clean"] - found["corrupt"]).abs().min() > 50 * tolerance(model, pairs)
    assert (whole - found["clean"]).abs().max() <= tolerance(model, pairs)
    assert (nothing - found["corrupt"]).abs().max() <= tolerance(model, pairs)


def test_random_circuits_are_those_run_by_hand(variant: str, make: Make, pairs: Pairs, by_hand: Circuits) -> None:
    model = make(variant)
    patching = EdgePatching(model, pairs, batch_size=3)
    names, random = patching.graph.edges, torch.Generator().manual_seed(0)
    kept = torch.tensor([[0.2], [0.5], [0.8], [0.95]])
    masks = torch.rand(len(kept), len(names), generator=random) < kept
    found = torch.stack(list(patching(masks)))
    expected = by_hand(variant, model, pairs, masks, names)
    assert (found - expected).abs().max() <= tolerance(model, pairs)
    # The circuits differ from one another by far more, so that none of them could stand for another.
    assert torch.pdist(expected).min() > 100 * tolerance(model, pairs)


@pytest.mark.parametrize("variant", ["gptj", "gpt_neo", "falcon-rw"], indirect=True)
def test_a_random_circuit_of_the_other_families_is_the_one_run_by_hand(
    variant: str, make: Make, even: Pairs, by_hand: Circuits
) -> None:
    model = make(variant)
    patching = EdgePatching(model, even)
    masks = torch.rand(2, patching.graph.n_edges, generator=torch.Generator().manual_seed(5)) < 0.7
    masks = torch.cat([masks, ends(patching.graph.n_edges)])
    found = torch.stack(list(patching(masks)))
    expected = by_hand(variant, model, even, masks, patching.graph.edges)
    assert (found - expected).abs().max() <= tolerance(model, even)
    clean = behaviour(model, even)
    assert (found[2] - clean["clean"]).abs().max() <= tolerance(model, even)
    assert (found[3] - clean["corrupt"]).abs().max() <= tolerance(model, even)


@pytest.mark.parametrize("variant", ["neox", "llama"], indirect=True)
@pytest.mark.parametrize("block", [1, 3])
def test_sources_that_do_not_fit_into_one_block_are_summed_over_several(
    block: int, variant: str, make: Make, even: Pairs, by_hand: Circuits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interpose.mediators.edges._BLOCK", block)
    model = make(variant)
    patching = EdgePatching(model, even)
    masks = torch.rand(2, patching.graph.n_edges, generator=torch.Generator().manual_seed(4)) < 0.6
    found = torch.stack(list(patching(masks)))
    expected = by_hand(variant, model, even, masks, patching.graph.edges)
    assert (found - expected).abs().max() <= tolerance(model, even)


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("variant", ["gpt2", "neox", "gemma3"], indirect=True)
def test_cutting_one_edge_is_what_it_is_by_hand(variant: str, make: Make, pairs: Pairs, by_hand: Circuits) -> None:
    model = make(variant)
    patching = EdgePatching(model, pairs)
    names = ["input->a0.h1<q>", "input->a0.h2<v>", "input->m0", "input->logits", "a0.h1->a1.h2<k>", "a0.h3->a1.h0<v>"]
    names += ["a0.h0->a1.h1<q>", "m0->a1.h3<q>", "m0->a1.h2<k>", "a1.h3->logits", "m0->logits", "m1->logits", "m0->m1"]
    names += [] if variant == "neox" else ["a0.h2->m0", "a1.h1->m1"]
    masks = without(names, patching)
    found = torch.stack(list(patching(masks)))
    expected = by_hand(variant, model, pairs, masks, patching.graph.edges)
    assert (found - expected).abs().max() <= tolerance(model, pairs)
    clean = behaviour(model, pairs)["clean"]
    # Each of these edges matters, so that cutting nothing would not pass.
    assert (expected - clean).abs().amax(1).min() > 20 * tolerance(model, pairs)


def test_every_other_edge_of_a_model_with_shared_keys(make: Make, even: Pairs, by_hand: Circuits) -> None:
    model = make("llama")
    patching = EdgePatching(model, even)
    names = patching.graph.edges
    masks = ~torch.eye(len(names), dtype=torch.bool)[::2]
    found = torch.stack(list(patching(masks)))
    assert (found - by_hand("llama", model, even, masks, names)).abs().max() <= tolerance(model, even)


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("variant", ["llama", "gemma3"], indirect=True)
def test_a_grouped_edge_is_the_edges_of_all_heads_that_share_its_key(variant: str, make: Make, pairs: Pairs) -> None:
    model = make(variant)
    apart, grouped = EdgePatching(model, pairs), EdgePatching(model, pairs, Edges(grouped=True))
    masks = torch.rand(6, grouped.graph.n_edges, generator=torch.Generator().manual_seed(2)) < 0.6
    spread = torch.zeros(len(masks), apart.graph.n_edges, dtype=torch.bool)
    for number, name in enumerate(apart.graph.edges):
        source, destination = name.split("->")
        layer, _, reader = destination.partition(".")
        if reader.endswith(("<k>", "<v>")):
            destination = f"{layer}.kv{int(reader[1]) // 2}{reader[2:]}"
        spread[:, number] = masks[:, grouped.graph.edges.number(f"{source}->{destination}")]
    found, expected = torch.stack(list(grouped(masks))), torch.stack(list(apart(spread)))
    assert grouped.graph.n_edges < apart.graph.n_edges
    assert (found - expected).abs().max() <= tolerance(model, pairs)


@pytest.mark.parametrize(
    ("shared", "why"),
    [
        ("olmo2-shared", "norms all keys together"),
        ("phi3-shared", "cuts keys and values out of one projection at fixed places"),
    ],
)
def test_keys_that_cannot_be_told_apart_can_be_cut_only_together(
    shared: str, why: str, make: Make, pairs: Pairs
) -> None:
    model = make(shared)
    with pytest.raises(SearchError) as failure:
        EdgePatching(model, pairs)
    assert str(failure.value) == (
        f"This family {why}, so query heads that share a key cannot be cut apart. Write Edges(grouped=True)."
    )
    patching = EdgePatching(model, pairs, Edges(grouped=True))
    whole, nothing = patching(ends(patching.graph.n_edges))
    found = behaviour(model, pairs)
    assert (whole - found["clean"]).abs().max() <= tolerance(model, pairs)
    assert (nothing - found["corrupt"]).abs().max() <= tolerance(model, pairs)


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_a_circuit_does_not_depend_on_how_its_pairs_are_batched(make: Make, pairs: Pairs) -> None:
    model = make("llama")
    masks = torch.rand(3, 110, generator=torch.Generator().manual_seed(3)) < 0.5
    runs = [torch.stack(list(EdgePatching(model, pairs, batch_size=size)(masks))) for size in (2, 5)]
    for run in runs:
        assert (run - runs[0]).abs().max() <= tolerance(model, pairs)
    assert EdgePatching(model, pairs, batch_size=2).batches == 3


def test_circuits_leave_the_network_as_it_was(variant: str, make: Make, even: Pairs) -> None:
    model = make(variant)
    batch = even.clean_batch().kwargs
    weights = {name: weight.clone() for name, weight in model.network.state_dict().items()}
    attributes = [sorted(module.__dict__) for module in model.network.modules()]
    before = model.network(**batch).logits
    patching = EdgePatching(model, even)
    list(patching(torch.rand(2, patching.graph.n_edges) < 0.5))
    assert torch.equal(model.network(**batch).logits, before)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.network.state_dict().items())
    assert [sorted(module.__dict__) for module in model.network.modules()] == attributes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.network.modules())
    assert all(weight.grad is None for weight in model.network.parameters())


def test_circuits_are_run_one_by_one_as_they_are_asked_for(make: Make, even: Pairs) -> None:
    model = make("gpt2")
    patching = EdgePatching(model, even)
    runs = patching(ends(patching.graph.n_edges))
    whole = next(runs)
    assert whole.shape == (len(even),)
    assert (whole - behaviour(model, even)["clean"]).abs().max() <= tolerance(model, even)


def test_a_circuit_of_another_graph_is_refused(make: Make, even: Pairs) -> None:
    patching = EdgePatching(make("llama"), even)
    with pytest.raises(SearchError) as failure:
        next(patching(torch.ones(1, 109, dtype=torch.bool)))
    assert str(failure.value) == "A circuit here is a mask of 110 edges, not of 109."


def test_pairs_without_any_difference_are_refused(make: Make, even: Pairs) -> None:
    same = replace(even, corrupt_tokens=even.clean_tokens)
    with pytest.raises(SearchError) as failure:
        EdgePatching(make("llama"), same)
    assert str(failure.value) == "No clean prompt differs from its corrupt one, so there is nothing to search for."


def test_a_ranking_is_proven_on_a_network(make: Make, even: Pairs) -> None:
    model = make("llama")
    # Circuits can be told apart only where clean and corrupt differ in the same direction on every pair.
    found = behaviour(model, even)
    up = found["clean"] > found["corrupt"]
    pairs = replace(
        even, answers=torch.where(up, even.answers, even.wrong), wrong=torch.where(up, even.wrong, even.answers)
    )
    scores = ip.methods.EAPIG().score(model, pairs, Edges())
    patching = EdgePatching(model, pairs)
    kept: dict[str, torch.Tensor] = {}
    settings = ProofSettings(sizes=(0.01, 0.05, 0.2, 1.0), draws=5, resamples=1000)
    proof = prove(scores, patching.graph, patching, settings, cache=kept)
    assert (proof.n_edges, proof.examples, proof.draws) == (110, 5, 5)
    found = behaviour(model, pairs)
    assert proof.full.value == pytest.approx(float(found["clean"].mean()), abs=1e-5)
    assert proof.empty.value == pytest.approx(float(found["corrupt"].mean()), abs=1e-5)
    mask = scores.circuit(22).mask
    alone = float((next(patching(mask[None])).mean() - proof.empty.value) / (proof.full.value - proof.empty.value))
    assert proof.circuit.signed.at(0.2).faithfulness.value == pytest.approx(alone, abs=1e-4)
    assert proof.circuit.signed.at(1.0).faithfulness.value == pytest.approx(1)
    # Attribution makes a better ranking than chance does.
    assert all(proof.cpr.value > control.cpr.value for control in proof.controls.values())
    assert Proof.from_dict(proof.to_dict()) == proof
    assert len(kept) == proof.evaluations

    def nothing_is_left_to_run(masks: torch.Tensor) -> Any:
        raise AssertionError(masks)

    assert prove(scores, patching.graph, nothing_is_left_to_run, settings, cache=kept) == proof
    worst = prove(Scores(-scores.values, scores.units), patching.graph, patching, settings)
    assert worst.cpr.value < proof.cpr.value
