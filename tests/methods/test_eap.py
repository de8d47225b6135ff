"""EAP and EAP-IG against exact patching, and against numbers worked out by hand."""

import math
from collections.abc import Callable

import pytest
import torch

import interpose as ip
from interpose.errors import SearchError
from interpose.mediators import Edges, Heads
from interpose.methods import EAP, EAPIG, ActivationPatching
from interpose.methods.base import Method
from interpose.search.ablation import ABLATIONS
from interpose.search.edge_patching import EdgePatching
from interpose.tasks.base import Pairs

Make = Callable[..., ip.Model]
OneNeuron = Callable[[str], tuple[ip.Model, Pairs]]
Reads = tuple[float, float, float]


def scored(method: Method, model: ip.Model, pairs: Pairs) -> dict[str, float]:
    scores = method.score(model, pairs, Edges())
    return dict(zip(scores.units, scores.values.tolist(), strict=True))


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_on_a_linear_model_the_guess_is_the_exact_effect(linear: ip.Model, pairs: Pairs) -> None:
    exact = ActivationPatching().score(linear, pairs, Edges()).values
    for method in (EAP(), EAPIG(steps=1), EAPIG(steps=3)):
        guess = method.score(linear, pairs, Edges()).values
        assert (guess - exact).abs().max() < 2e-6
    # Queries and keys have no effect here; of the other edges almost all do.
    names = Edges().graph(linear).edges
    still = torch.tensor([name.endswith(("<q>", "<k>")) for name in names])
    assert exact[still].abs().max() < 1e-6
    assert exact[~still].abs().median() > 1e-3


def test_a_square_is_missed_by_the_square_of_the_change(one_neuron: OneNeuron, neuron: Reads) -> None:
    """With f(a) = a^2 the exact effect is a^2 - b^2, the guess 2a(a - b): they differ by (a - b)^2 = 2.25."""
    (model, pairs), (a, b, direct) = one_neuron("relu2"), neuron
    exact, guess = scored(ActivationPatching(), model, pairs), scored(EAP(), model, pairs)
    assert exact["input->m0"] == pytest.approx(a**2 - b**2) == pytest.approx(4.5)
    assert guess["input->m0"] == pytest.approx(2 * a * (a - b)) == pytest.approx(6.75)
    assert guess["input->m0"] - exact["input->m0"] == pytest.approx((a - b) ** 2) == pytest.approx(2.25)
    # What goes straight into the logits is linear, so that there is nothing to miss.
    for scores in (exact, guess):
        assert scores["m0->logits"] == pytest.approx(a**2 - b**2)
        assert scores["input->logits"] == pytest.approx(direct)
        assert scores["a0.h0->m0"] == scores["a0.h0->logits"] == scores["input->a0.h0<q>"] == 0


@pytest.mark.parametrize("steps", [1, 2, 12])
def test_steps_from_the_corrupt_end_miss_a_square_by_one_nth(steps: int, one_neuron: OneNeuron, neuron: Reads) -> None:
    """The slopes 2b ... 2(b + (a - b)(n - 1)/n) average to a + b - (a - b)/n."""
    (model, pairs), (a, b, direct) = one_neuron("relu2"), neuron
    found = scored(EAPIG(steps=steps), model, pairs)
    assert found["input->m0"] == pytest.approx((a**2 - b**2) - (a - b) ** 2 / steps)
    assert found["input->logits"] == pytest.approx(direct)


def test_one_step_is_the_slope_at_the_corrupt_end_and_with_the_clean_end_makes_a_square_exact(
    one_neuron: OneNeuron, neuron: Reads
) -> None:
    (model, pairs), (a, b, _) = one_neuron("relu2"), neuron
    corrupt, clean = (scored(method, model, pairs)["input->m0"] for method in (EAPIG(steps=1), EAP()))
    assert corrupt == pytest.approx(2 * b * (a - b))
    assert (corrupt + clean) / 2 == pytest.approx(a**2 - b**2)


def test_a_saturated_neuron_is_missed_by_its_slope_and_found_on_the_way(one_neuron: OneNeuron, neuron: Reads) -> None:
    (model, pairs), (a, b, _) = one_neuron("tanh"), neuron
    exact, guess = scored(ActivationPatching(), model, pairs), scored(EAP(), model, pairs)
    assert exact["input->m0"] == pytest.approx(math.tanh(a) - math.tanh(b))
    assert guess["input->m0"] == pytest.approx((1 - math.tanh(a) ** 2) * (a - b), rel=1e-5)
    assert guess["input->m0"] < 0.2 * exact["input->m0"]
    ways = [(1 - math.tanh(b + (a - b) * k / 5) ** 2) * (a - b) / 5 for k in range(5)]
    found = scored(EAPIG(), model, pairs)["input->m0"]
    assert found == pytest.approx(sum(ways), rel=1e-5)
    assert abs(found - exact["input->m0"]) < 0.3 * exact["input->m0"]


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("method", [EAP(), EAPIG()], ids=repr)
def test_a_positive_score_says_that_the_edge_helps(method: Method, make: Make, pairs: Pairs) -> None:
    """Without the edge scored highest the behaviour falls, without the one scored lowest it rises."""
    model = make("gpt2")
    scores = method.score(model, pairs, Edges())
    ranked = [row for row in scores.top(len(scores)) if row.unit.endswith("->logits")]
    best, worst = ranked[0], ranked[-1]
    patching = EdgePatching(model, pairs)
    masks = torch.ones(3, len(scores), dtype=torch.bool)
    for row, unit in enumerate((best, worst), 1):
        masks[row, patching.graph.edges.number(unit.unit)] = False
    whole, without_best, without_worst = (run.mean() for run in patching(masks))
    assert best.score > 0 > worst.score
    assert without_best < whole < without_worst


@pytest.mark.parametrize("method", [EAP(), EAPIG()], ids=repr)
def test_only_edges_are_scored(method: Method, make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        method.score(make("llama"), even, Heads())
    assert str(failure.value) == (
        f"{type(method).__name__} cannot score Heads(). It scores Edges(); for other units use ActivationPatching()."
    )


@pytest.mark.parametrize("steps", [0, -1])
def test_without_a_step_there_is_nothing_to_average(steps: int, make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        EAPIG(steps=steps).score(make("llama"), even, Edges())
    assert str(failure.value) == f"EAPIG needs at least one step, but steps is {steps}."


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_on_a_linear_model_the_guess_is_exact_under_every_ablation(
    ablation: str, linear: ip.Model, pairs: Pairs
) -> None:
    exact = ActivationPatching(ablation=ablation).score(linear, pairs, Edges()).values
    guess = EAP(ablation=ablation).score(linear, pairs, Edges()).values
    assert (guess - exact).abs().max() < 5e-6 * max(1.0, float(exact.abs().max()))
    assert exact.abs().max() > 1e-2
    whole = ActivationPatching().score(linear, pairs, Edges()).values
    assert ablation == "counterfactual" or (exact - whole).abs().max() > 1e-2


def test_a_square_under_every_ablation_by_hand(one_neuron: OneNeuron, neuron: Reads) -> None:
    """Without the embedding the neuron reads its bias, 0.25; a mean over one token is that token's own."""
    (model, pairs), (a, _, direct) = one_neuron("relu2"), neuron
    zero = scored(EAP(ablation="zero"), model, pairs), scored(ActivationPatching(ablation="zero"), model, pairs)
    assert zero[0]["input->m0"] == pytest.approx(2 * a * (a - 0.25)) == pytest.approx(9.0)
    assert zero[1]["input->m0"] == pytest.approx(a**2 - 0.25**2) == pytest.approx(5.0)
    assert zero[0]["m0->logits"] == pytest.approx(a**2)
    assert zero[0]["input->logits"] == pytest.approx(2 * direct)
    for ablation in ("mean", "mean-positional"):
        assert max(map(abs, scored(EAP(ablation=ablation), model, pairs).values())) == pytest.approx(0, abs=1e-6)


def test_a_mean_of_two_prompts_by_hand(one_neuron: OneNeuron, neuron: Reads) -> None:
    """Clean prompts that read 2.25 and 0.75: each would be given 1.5."""
    (model, pairs), (a, b, _) = one_neuron("relu2"), neuron
    clean = torch.cat([pairs.clean_tokens, pairs.corrupt_tokens])
    both = Pairs(("c", "d"), ("d", "c"), clean, clean.flip(0), clean >= 0, pairs.answers.repeat(2),
                 pairs.wrong.repeat(2))  # fmt: skip
    middle = (a + b) / 2
    expected = (2 * a * (a - middle) + 2 * b * (b - middle)) / 2
    for ablation in ("mean", "mean-positional"):
        assert scored(EAP(ablation=ablation), model, both)["input->m0"] == pytest.approx(expected)
    assert expected == pytest.approx(1.125)


def test_what_is_no_ablation_is_refused(make: Make, even: Pairs) -> None:
    for method in (EAP(ablation="median"), ActivationPatching(ablation="median")):
        with pytest.raises(SearchError, match="There is no ablation 'median'"):
            method.score(make("llama"), even, Edges())
