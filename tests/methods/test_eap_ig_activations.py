"""The slope averaged while one part after the other goes from corrupt to clean, and at both ends only."""

from collections.abc import Callable

import pytest
import torch

import interpose as ip
from interpose.errors import SearchError
from interpose.mediators import Edges, Heads
from interpose.mediators.edges import all_written, cut_edges, table_of
from interpose.methods import EAP, EAPIG, ActivationPatching, CleanCorrupted, EAPIGActivations
from interpose.methods.base import Method
from interpose.search.attribution import Point, attribute_edges
from interpose.search.behaviour import first_difference, logit_difference
from interpose.search.progress import watching
from interpose.tasks.base import Pairs

Make = Callable[..., ip.Model]
OneNeuron = Callable[[str], tuple[ip.Model, Pairs]]
Reads = tuple[float, float, float]


def scored(method: Method, model: ip.Model, pairs: Pairs) -> dict[str, float]:
    scores = method.score(model, pairs, Edges())
    return dict(zip(scores.units, scores.values.tolist(), strict=True))


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("linear", ["gpt2", "llama"], indirect=True)
def test_on_a_linear_model_both_ends_together_give_the_exact_effect(linear: ip.Model, pairs: Pairs) -> None:
    exact = ActivationPatching().score(linear, pairs, Edges()).values
    assert (CleanCorrupted().score(linear, pairs, Edges()).values - exact).abs().max() < 2e-6


def with_held(model: ip.Model, pairs: Pairs, group: str | None, edge: str) -> float:
    """The exact effect of cutting an edge while a group's output, if any, is held as on the clean prompts."""
    graph, first = Edges().graph(model), first_difference(pairs)
    with model.trace(pairs.clean_batch()):
        output = model.site(group or "embed")[:, first:].save()
    found = []
    for share in (0.0, 1.0):
        values = torch.zeros(graph.n_edges)
        values[graph.edges.number(edge)] = share
        with model.trace() as t:
            with t.world("corrupt", pairs.corrupt_batch()):
                corrupt = all_written(model, first)
            with t.world("clean", pairs.clean_batch()):
                cut_edges(model, graph, corrupt, t.input("cut", table_of(values, graph)), first)
                if group is not None:
                    model.site(group)[:, first:] = output
                m = logit_difference(model, t, pairs).mean().save()
        found.append(float(m))
    return found[0] - found[1]


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("linear", ["gpt2"], indirect=True)
def test_on_a_linear_model_a_score_is_the_mean_of_the_exact_effects_while_a_group_is_held(
    linear: ip.Model, pairs: Pairs
) -> None:
    """So an edge whose every way leads through a group that is held loses those runs, as published."""
    found = scored(EAPIGActivations(steps=2), linear, pairs)
    groups = ["embed", *[f"layers.{layer}.{part}.output" for layer in range(2) for part in ("attn", "mlp")]]
    for edge in ("input->a0.h1<v>", "m0->a1.h0<v>", "a0.h0->m1", "m1->logits"):
        held = [with_held(linear, pairs, group, edge) for group in groups]
        assert found[edge] == pytest.approx(sum(held) / len(groups), abs=3e-6)
    assert found["m1->logits"] == pytest.approx(with_held(linear, pairs, None, "m1->logits"), abs=3e-6)
    assert found["m0->a1.h0<v>"] != pytest.approx(with_held(linear, pairs, None, "m0->a1.h0<v>"), rel=0.05)


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_a_square_and_its_neighbours_by_hand(steps: int, one_neuron: OneNeuron, neuron: Reads) -> None:
    """Three groups. The embedding's way gives slopes 2(b + (a - b)k/n), k = 1 .. n; the empty attention's 2a each time;
    while the MLP is held nothing passes it, so that two runs of three count: by hand, unlike any neighbour."""
    (model, pairs), (a, b, direct) = one_neuron("relu2"), neuron
    found = scored(EAPIGActivations(steps=steps), model, pairs)
    way = sum(2 * (b + (a - b) * k / steps) for k in range(1, steps + 1)) / steps
    assert found["input->m0"] == pytest.approx((way + 2 * a) * (a - b) / 3)
    assert found["input->logits"] == pytest.approx(direct)
    assert found["m0->logits"] == pytest.approx(a**2 - b**2)
    assert scored(CleanCorrupted(), model, pairs)["input->m0"] == pytest.approx(a**2 - b**2) == pytest.approx(4.5)
    neighbours = [scored(method, model, pairs)["input->m0"] for method in (EAP(), EAPIG(steps=steps))]
    assert min(abs(found["input->m0"] - other) for other in neighbours) > 0.1


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("variant", ["neox", "llama", "gemma3"])
def test_the_clean_output_in_a_groups_place_cuts_only_what_passes_through_it(
    variant: str, make: Make, pairs: Pairs
) -> None:
    """With its clean output the run is the clean run, and what does not lead through the group keeps its slope."""
    model = make(variant)
    plain = attribute_edges(model, pairs, Edges(), [1.0], 3)
    held = attribute_edges(model, pairs, Edges(), [Point(1.0, "layers.1.attn.output")], 3)
    names = Edges().graph(model).edges
    through = torch.tensor([">a1." in name for name in names])
    past = torch.tensor([name.endswith(("->logits", "->m1")) for name in names])
    assert (held[past] - plain[past]).abs().max() < 1e-5
    assert held[through].abs().max() == 0 < plain[through].abs().max()


def test_every_group_and_step_is_a_run_of_its_own_and_none_is_kept(make: Make, even: Pairs) -> None:
    """A published implementation keeps every run's graph (retain_graph) and so runs out of memory."""
    told: list[tuple[str, int, int]] = []
    with watching(lambda *progress: told.append(progress)):
        EAPIGActivations(steps=2, batch_size=2).score(make("gpt2"), even, Edges())
    assert told == [("attributing edges", done, 2 * 5 * 2) for done in range(21)]


def test_pairs_of_unequal_length_have_one_mask_for_both_runs(make: Make, even: Pairs) -> None:
    """Padding changes nothing: a published implementation ran corrupt prompts with the mask of others."""
    pad = torch.zeros(len(even), 2, dtype=torch.long)
    tokens = [torch.cat([pad, each], 1) for each in (even.clean_tokens, even.corrupt_tokens)]
    mask = torch.cat([pad.bool(), even.mask], 1)
    padded = Pairs(even.clean, even.corrupt, *tokens, mask, even.answers, even.wrong)
    for method in (CleanCorrupted(), EAPIGActivations(steps=1)):
        plain, found = (method.score(make("llama"), each, Edges()).values for each in (even, padded))
        assert (found - plain).abs().max() < 1e-5


@pytest.mark.parametrize("method", [CleanCorrupted(), EAPIGActivations()], ids=repr)
def test_only_edges_are_scored(method: Method, make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        method.score(make("llama"), even, Heads())
    assert str(failure.value) == (
        f"{type(method).__name__} cannot score Heads(). It scores Edges(); for other units use ActivationPatching()."
    )


def test_without_a_step_there_is_nothing_to_average(make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        EAPIGActivations(steps=0).score(make("llama"), even, Edges())
    assert str(failure.value) == "EAPIGActivations needs at least one step, but steps is 0."
