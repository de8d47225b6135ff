"""Models trained to implement a causal graph: how they are trained, and whether their cards say the truth."""

from random import Random
from typing import Any

import pytest
import torch

import interpose as ip
from interpose import discovery
from interpose.graph import Batch
from interpose.loading.cards import cards
from interpose.mediators.edges import Edges
from interpose.studies._zoo import comparison_siit, ioi_siit
from interpose.studies._zoo._siit import NONE, Aligned, Prompts, _drawn, nodes, outside, run, siit_loss
from interpose.studies._zoo._siit_measure import differences, measured
from interpose.studies._zoo.base import Trained
from interpose.tasks.base import Pairs
from interpose.trace import Model

MADE: dict[str, tuple[Trained, Aligned]] = {
    "comparison-siit": (comparison_siit.ComparisonSIIT(), comparison_siit.aligned()),
    "ioi-siit": (ioi_siit.IOISIIT(), ioi_siit.aligned()),
}


@pytest.fixture(scope="module", params=list(MADE))
def name(request: pytest.FixtureRequest) -> str:
    """One of the models."""
    return request.param


@pytest.fixture(scope="module")
def model(name: str) -> Model:
    """That model."""
    return ip.load(name)


@pytest.fixture(scope="module")
def pairs(name: str, model: Model) -> Pairs:
    """Pairs of its task, of the test split."""
    return discovery.load("interpose.tasks", cards()[name].task)().pairs(model, n=64, seed=5, split="test")


def fresh(name: str) -> tuple[Model, Aligned, Any]:
    recipe, aligned = MADE[name]
    return ip.wrap(recipe.network(3)), aligned, aligned.draw(12, Random(4))


class TestTraining:
    """What a step of the training does, on first weights."""

    def test_a_run_without_swaps_is_the_plain_network(self, name: str) -> None:
        model, _, prompts = fresh(name)
        with torch.no_grad():
            logits, _ = run(model, prompts.base)
            plain = model.network(**prompts.base.kwargs, logits_to_keep=1).logits[:, -1]
        assert torch.equal(logits, plain)

    def test_each_row_takes_over_its_own_nodes(self, name: str) -> None:
        """Against the library's blocks, one row and one node at a time."""
        model, _, prompts = fresh(name)
        order = nodes(model)
        swap = torch.zeros(12, len(order))
        chosen = [(3 * row + 1) % len(order) for row in range(12)]
        swap[range(12), chosen] = 1
        with torch.no_grad():
            _, written = run(model, prompts.source)
            logits, _ = run(model, prompts.base, written, swap)
        for row, node in enumerate(chosen):
            layer, head = divmod(node, model.sizes().heads + 1)
            with model.trace() as t:
                part = model.layers[layer]
                with t.world("source", prompts.source):
                    taken = part.mlp.output if head == model.sizes().heads else part.attn.z[:, :, head]
                with t.world("base", prompts.base):
                    if head == model.sizes().heads:
                        part.mlp.output = taken
                    else:
                        part.attn.z[:, :, head] = taken
                    expected = model.logits[row, -1].save()
            torch.testing.assert_close(logits[row], expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("alone", [False, True])
    def test_what_is_taken_over(self, name: str, alone: bool) -> None:
        model, aligned, _ = fresh(name)
        order, free = nodes(model), set(outside(model, aligned))
        swap, variables = _drawn(model, aligned, 200, Random(8), alone)
        for row, (taken, names) in enumerate(zip(swap, variables, strict=True)):
            numbers = set(taken.nonzero()[:, 0].tolist())
            carry = {order.index(aligned.places[each]) for each in names}
            assert numbers - free == carry
            assert bool(carry) == (row < 100)
            assert bool(numbers & free) or row < 100
            assert numbers >= free or not alone
        assert {len(names) for names in variables[:100]} == set(range(1, len(aligned.places) + 1))

    def test_the_loss_by_hand(self, name: str) -> None:
        model, aligned, prompts = fresh(name)
        loss = siit_loss(model, aligned, prompts, Random(8))
        swap, variables = _drawn(model, aligned, 12, Random(8), alone=False)
        with torch.no_grad():
            clean, written = run(model, prompts.source)
            logits, _ = run(model, prompts.base, written, swap)
        expected = 0.0
        for row in range(12):
            own = aligned.causal.run(prompts.source_inputs[row])[aligned.causal.output]
            expected -= float(clean[row].log_softmax(0)[aligned.token(own)]) / 12
            fixed = {each: aligned.causal.run(prompts.source_inputs[row])[each] for each in variables[row]}
            then = aligned.causal.run(prompts.base_inputs[row], fixed)[aligned.causal.output]
            if then is not None:
                expected -= float(logits[row].log_softmax(0)[aligned.token(then)]) / 6 * (1.0 if row < 6 else 0.4)
        assert float(loss) == pytest.approx(expected, rel=1e-5)

    def test_every_weight_learns(self, name: str) -> None:
        model, aligned, prompts = fresh(name)
        siit_loss(model, aligned, prompts, Random(8)).backward()
        assert all(weight.grad is not None for weight in model.network.parameters())

    def test_two_prompts_that_do_not_fit_have_no_answer(self) -> None:
        aligned = ioi_siit.aligned()
        prompts = Prompts(
            Batch(),
            Batch(),
            [{"first": "Adam", "second": "Betty", "subject": "Adam"}] * 2,
            [{"first": "Adam", "second": "Betty", "subject": "Betty"}, {"first": "X", "second": "Y", "subject": "X"}],
        )
        found = aligned.exchanged(prompts, [["duplicate"], ["inhibition"]])
        assert found.tolist() == [aligned.token("Adam"), NONE]


class TestCards:
    """What the cards of the finished models say."""

    def test_the_scores_are_measured_again(self, name: str, model: Model) -> None:
        found = measured(model, MADE[name][1], seed=11, n=128)
        card = cards()[name]
        assert found.keys() | {"truth_alone"} == card.scores.keys()
        for what, score in found.items():
            assert score.agrees(card.scores[what]), what

    def test_places_carry_their_variables_and_nothing_else_does(self, name: str) -> None:
        scores = cards()[name].scores
        assert scores["accuracy"].value >= 0.99
        assert all(score.value >= 0.95 for what, score in scores.items() if what.startswith("interchange_"))
        assert scores["strict"].value > 0.99

    def test_the_truth_is_enough_and_every_edge_of_it_is_needed(self, name: str, model: Model, pairs: Pairs) -> None:
        graph = Edges().graph(model)
        truth = cards()[name].truth
        assert truth is not None
        without = [[edge for edge in truth.edges if edge != left_out] for left_out in truth.edges]
        found = differences(model, pairs, [list(graph.edges), [], truth.edges, *without])
        whole, nothing, alone = found[:3].mean(1)
        assert float((alone - nothing) / (whole - nothing)) == pytest.approx(1, abs=0.05)
        assert float((found[2] > 0).float().mean()) >= 0.98
        for less in found[3:].mean(1):
            assert float((alone - less) / (whole - nothing)) > 0.1

    def test_no_other_edge_matters(self, name: str, model: Model, pairs: Pairs) -> None:
        graph = Edges().graph(model)
        truth = cards()[name].truth
        assert truth is not None
        others = [edge for edge in graph.edges if edge not in truth.edges]
        found = differences(model, pairs[:32], [list(graph.edges), [], *([e for e in graph.edges if e != o] for o in others)])
        whole, nothing = found[:2].mean(1)
        assert float(((whole - found[2:].mean(1)) / (whole - nothing)).abs().max()) < 0.1
