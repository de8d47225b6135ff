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
from interpose.studies._zoo._siit import NONE, Aligned, Change, Prompts, drawn, nodes, outside, run, siit_loss
from interpose.studies._zoo._siit_measure import differences
from interpose.studies._zoo.base import Trained
from interpose.tasks.base import CausalModel, Pairs, Variable
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


def value_of(model: Model, node: int) -> Any:
    """In a block: what a node writes."""
    layer, head = divmod(node, model.sizes().heads + 1)
    part = model.layers[layer]
    return part.mlp.output if head == model.sizes().heads else part.attn.z[:, :, head]


def set_value(model: Model, node: int, value: Any) -> None:
    """In a block: let a node write something else."""
    layer, head = divmod(node, model.sizes().heads + 1)
    part = model.layers[layer]
    if head == model.sizes().heads:
        part.mlp.output = value
    else:
        part.attn.z[:, :, head] = value


class TestTraining:
    """What a step of the training does, on first weights."""

    def test_a_run_without_changes_is_the_plain_network(self, name: str) -> None:
        model, _, prompts = fresh(name)
        with torch.no_grad():
            logits, _ = run(model, prompts.base)
            plain = model.network(**prompts.base.kwargs, logits_to_keep=1).logits[:, -1]
        assert torch.equal(logits, plain)

    def test_each_row_takes_over_its_own_nodes(self, name: str) -> None:
        """Against the library's blocks, one row at a time: one node from the source, and one held."""
        model, _, prompts = fresh(name)
        order, rows = nodes(model), range(12)
        takes, holds = torch.zeros(12, len(order)), torch.zeros(12, len(order))
        taken, held = [row % 5 for row in rows], [5 + (3 * row + 1) % (len(order) - 5) for row in rows]
        takes[rows, taken], holds[rows, held] = 1, 1
        with torch.no_grad():
            (_, source), (_, own) = run(model, prompts.source), run(model, prompts.base)
            logits, _ = run(model, prompts.base, ((takes, source), (holds, own)))
        for row in rows:
            with model.trace() as t:
                with t.world("source", prompts.source):
                    from_source = value_of(model, taken[row])
                with t.world("plain", prompts.base):
                    kept = value_of(model, held[row])
                with t.world("base", prompts.base):
                    set_value(model, taken[row], from_source)
                    set_value(model, held[row], kept)
                    expected = model.logits[row, -1].save()
            torch.testing.assert_close(logits[row], expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("alone", [False, True])
    def test_what_is_changed(self, name: str, alone: bool) -> None:
        model, aligned, _ = fresh(name)
        order, free = nodes(model), set(outside(model, aligned))
        takes, holds, changes = drawn(model, aligned, 200, Random(8), alone)
        for row, change in enumerate(changes):
            taken, held = (set(table[row].nonzero()[:, 0].tolist()) for table in (takes, holds))
            assert taken - free == {order.index(aligned.places[each]) for each in change.taken}
            assert held == {order.index(aligned.places[each]) for each in change.held}
            assert not taken & held
            assert bool(change.taken) == (row < 100)
            assert taken & free or row < 100
            assert taken >= free or not alone
        counts = range(1, len(aligned.places) + 1)
        assert {len(change.taken) for change in changes[:100]} == set(counts)
        assert {len(change.held) for change in changes[:100]} == set(range(len(counts)))

    def test_the_loss_by_hand(self, name: str) -> None:
        model, aligned, prompts = fresh(name)
        loss = siit_loss(model, aligned, prompts, Random(8))
        takes, holds, changes = drawn(model, aligned, 12, Random(8), alone=False)
        with torch.no_grad():
            (clean, own), (_, source) = run(model, prompts.base), run(model, prompts.source)
            logits, _ = run(model, prompts.base, ((takes, source), (holds, own)))
        expected = 0.0
        for row, change in enumerate(changes):
            base, other = (aligned.causal.run(each[row]) for each in (prompts.base_inputs, prompts.source_inputs))
            expected -= float(clean[row].log_softmax(0)[aligned.token(base[aligned.causal.output])]) / 12
            fixed = {each: base[each] for each in change.held} | {each: other[each] for each in change.taken}
            then = aligned.causal.run(prompts.base_inputs[row], fixed)[aligned.causal.output]
            if then is not None:
                expected -= float(logits[row].log_softmax(0)[aligned.token(then)]) / 6 * (1.0 if row < 6 else 0.4)
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)

    def test_every_weight_learns(self, name: str) -> None:
        model, aligned, prompts = fresh(name)
        siit_loss(model, aligned, prompts, Random(8)).backward()
        assert all(weight.grad is not None for weight in model.network.parameters())

    def test_variables_of_two_prompts_that_do_not_fit_have_no_answer(self) -> None:
        causal = CausalModel(
            ("name", "options"),
            {
                "said": Variable(("name",), lambda name: name),
                "answer": Variable(("said", "options"), lambda said, options: said if said in options else None),
            },
            "answer",
        )
        aligned = Aligned(
            causal, {"said": "a0.h0", "answer": "a1.h0"}, {"x": 7, "y": 8}.__getitem__, lambda n, random: base
        )
        base = Prompts(
            Batch(),
            Batch(),
            [{"name": "x", "options": "xy"}] * 3,
            [{"name": "y", "options": "xy"}, {"name": "z", "options": "z"}, {"name": "y", "options": "xy"}],
        )
        found = aligned.exchanged(base, [Change(("said",)), Change(("said",)), Change(("said",), ("answer",))])
        assert found.tolist() == [8, NONE, 7]


class TestCards:
    """What the cards of the finished models say."""

    def test_places_carry_their_variables_and_nothing_else_does(self, name: str) -> None:
        scores = cards()[name].scores
        assert scores["accuracy"].value >= 0.99
        assert all(score.value >= 0.94 for what, score in scores.items() if what.startswith(("interchange", "held")))
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
        found = differences(
            model, pairs[:32], [list(graph.edges), [], *([e for e in graph.edges if e != o] for o in others)]
        )
        whole, nothing = found[:2].mean(1)
        assert float(((whole - found[2:].mean(1)) / (whole - nothing)).abs().max()) < 0.12
