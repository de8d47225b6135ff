"""A mask over units: its ends and its middle against hooks, its gradient against finite differences."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

import pytest
import torch
from torch import Tensor

import interpose as ip
from interpose.errors import SearchError
from interpose.mediators import Edges, HeadInputs, Heads, Neurons, Nodes, Positions, Streams, TokenRoles
from interpose.mediators.base import Mediator, PlaceMediator, Unit
from interpose.search import mask as module
from interpose.search.edge_patching import EdgePatching
from interpose.search.gates import Clamp, Gate, HardConcrete, Sigmoid
from interpose.search.mask import Masked, fit_mask, mixing_of
from interpose.search.mixing import BASE, DOUBLE, SOURCE, ZERO, EdgeMixing, Mix, PlaceMixing
from interpose.search.objective import KL, CrossEntropy, Logit, Loss, PerUnit
from interpose.search.training import Optimiser
from interpose.tasks.base import Pairs

Make = Callable[..., ip.Model]
KEEP, WHOLE_MODEL, NOISY = Mix(), KL(), HardConcrete()
WHOLE: list[Mediator] = [Edges(), Nodes(), Positions(of=Nodes()), Streams()]
"""Units that are the whole model together."""


def masked(
    model: ip.Model, pairs: Pairs, units: Mediator, loss: Loss = WHOLE_MODEL, size: int = 8, mix: Mix = KEEP
) -> Masked:
    mixing = mixing_of(model, pairs, units, mix)
    assert mixing is not None
    return Masked(model, pairs, mixing, loss, size)


def stock(model: ip.Model, batch: Any) -> Tensor:
    with torch.no_grad():
        return model.network(**batch.kwargs).logits[:, -1]


@pytest.mark.parametrize("units", WHOLE, ids=repr)
@pytest.mark.parametrize("variant", ["gpt2", "llama"], indirect=True)
def test_all_open_is_the_clean_run_and_all_shut_the_corrupt_run(
    variant: str, units: Mediator, make: Make, pairs: Pairs
) -> None:
    model = make(variant)
    over = masked(model, pairs, units, size=3)
    clean, corrupt = stock(model, pairs.clean_batch()), stock(model, pairs.corrupt_batch())
    tolerance = 1e-5 * float(clean.abs().max().clamp(min=1))
    assert (over.logits(torch.ones(over.mixing.count)) - clean).abs().max() <= tolerance
    assert (over.logits(torch.zeros(over.mixing.count)) - corrupt).abs().max() <= tolerance
    assert (clean - corrupt).abs().max() > 100 * tolerance


@pytest.mark.parametrize("mix", [Mix(), Mix(SOURCE, BASE), Mix(DOUBLE, ZERO), Mix(BASE, ZERO)], ids=str)
def test_heads_carry_the_mixture_that_hooks_would_give_them(mix: Mix, make: Make, pairs: Pairs) -> None:
    model, network = make("llama"), make("llama").network
    share = torch.rand(8, generator=torch.Generator().manual_seed(0))
    found = masked(model, pairs, Heads(), mix=mix).logits(share)
    seen: dict[int, Tensor] = {}
    outs = [layer.self_attn.o_proj for layer in network.model.layers]

    def hooked(visit: Callable[[int, Tensor], Tensor | None], batch: Any) -> Tensor:
        def hook(number: int) -> Any:
            def change(_: Any, args: Any) -> Any:
                new = visit(number, args[0].unflatten(-1, (4, -1)))
                return None if new is None else (new.flatten(-2),)

            return change

        handles = [out.register_forward_pre_hook(hook(i)) for i, out in enumerate(outs)]
        try:
            return stock(model, batch)
        finally:
            for handle in handles:
                handle.remove()

    hooked(lambda layer, z: seen.__setitem__(layer, z.clone()), pairs.corrupt_batch())

    def patch(layer: int, z: Tensor) -> Tensor:
        m = share[4 * layer : 4 * layer + 4, None]
        ends = [end.own * z + end.source * seen[layer] for end in (mix.one, mix.zero)]
        return m * ends[0] + (1 - m) * ends[1]

    expected = hooked(patch, pairs.clean_batch())
    assert (found - expected).abs().max() <= 1e-5 * float(expected.abs().max())
    assert (found - stock(model, pairs.clean_batch())).abs().max() > 0.01


@pytest.mark.parametrize("of", [Streams(), Heads()], ids=repr)
def test_units_at_token_roles_are_mixed_where_each_prompt_has_its_role(
    of: PlaceMediator, make: Make, pairs: Pairs
) -> None:
    model = make("llama")
    one, other = torch.tensor([-1, -2, -1, -1, -2]), torch.tensor([-3, -3, -2, -3, -1])
    roles = replace(pairs, roles={"one": one, "other": other})
    over = masked(model, roles, TokenRoles(of=of), size=2)
    everywhere = masked(model, pairs, Positions(of=of, last=3))
    share = torch.rand(over.mixing.count, generator=torch.Generator().manual_seed(0))
    found = over.logits(share)
    # The same mask pair by pair, over positions: what belongs to no role stays as it is.
    names = list(Positions(of=of, last=3).units(model, pairs))
    for row in range(len(pairs)):
        by_position = torch.ones(everywhere.mixing.count)
        for unit, value in zip(TokenRoles(of=of).units(model, roles), share, strict=True):
            place, _, role = unit.partition("@")
            by_position[names.index(f"{place}@{int(roles.roles[role][row])}")] = value
        expected = masked(model, pairs[row : row + 1], Positions(of=of, last=3)).logits(by_position)
        assert (found[row] - expected[0]).abs().max() <= 1e-5 * float(expected.abs().max().clamp(min=1))


def test_roles_that_fall_on_one_token_cannot_both_be_masked(make: Make, even: Pairs) -> None:
    roles = replace(
        even, roles={"one": torch.tensor([-1, -2, -1, -1, -1]), "other": torch.tensor([-3, -3, -1, -2, -2])}
    )
    with pytest.raises(SearchError, match="s0@other overlaps with another unit at layers.0..output"):
        masked(make("llama"), roles, TokenRoles())


def test_a_mask_of_ones_and_zeros_over_edges_is_a_circuit(make: Make, pairs: Pairs) -> None:
    model = make("neox")
    circuits = torch.rand(3, 102, generator=torch.Generator().manual_seed(1)) < 0.7
    over = masked(model, pairs, Edges(), Logit("wrong", "answers"))
    expected = EdgePatching(model, pairs)(circuits)
    for circuit, run in zip(circuits, expected, strict=True):
        assert (over.losses(circuit.float()) - run).abs().max() < 1e-4


def test_edges_without_corrupt_values_carry_their_own_some_times_over(make: Make, even: Pairs) -> None:
    """Shut at every edge, nothing arrives anywhere; twice open at the edges into the logits, the stream doubles."""
    model = make("llama")
    count = Edges().graph(model).n_edges
    into_logits = torch.tensor([name.endswith("->logits") for name in Edges().units(model)])
    found = masked(model, even, Edges(), mix=Mix(DOUBLE, BASE)).logits(into_logits.float())
    handle = model.network.model.norm.register_forward_pre_hook(lambda _, args: (2 * args[0],))
    try:
        expected = stock(model, even.clean_batch())
    finally:
        handle.remove()
    assert (found - expected).abs().max() <= 1e-5 * float(expected.abs().max())
    nothing = masked(model, even, Edges(), mix=Mix(BASE, ZERO)).logits(torch.zeros(count))
    assert nothing.abs().max() < 1e-5


@final
@dataclass(frozen=True)
class EachItsOwn(Gate):
    """Each pair's mask is the parameters times numbers drawn for it; for tests."""

    start = 1.0
    each_pair = True

    def draw(self, shape: tuple[int, int], random: torch.Generator, progress: float) -> dict[str, Tensor]:
        return {"times": torch.rand(shape, generator=random)}

    def mask(self, parameters: Any, drawn: Any) -> Any:
        return parameters * drawn["times"]

    def size(self, parameters: Any) -> Any:
        return parameters**2

    def project(self, parameters: Tensor) -> Tensor:
        return parameters


# Families whose norms work in double precision: those of Llama go through float32.
CASES: list[tuple[str, Mediator, Gate, Loss]] = [
    ("gpt2", Edges(), Clamp(), KL()),
    ("falcon-grouped", Edges(grouped=True), HardConcrete(), CrossEntropy("wrong")),
    ("neox", Edges(), EachItsOwn(), Logit()),
    ("gpt2", Heads(), Sigmoid(last_temperature=0.1), Logit("wrong", None)),
    ("falcon-grouped", HeadInputs(), HardConcrete(), KL()),
    ("gpt2", Neurons(), EachItsOwn(), CrossEntropy()),
    ("gpt2", Positions(of=Nodes()), EachItsOwn(), KL()),
    ("neox", Nodes(), Clamp(0.5), Logit("answers", "wrong")),
]


@pytest.mark.parametrize(("variant", "units", "gate", "loss"), CASES, ids=lambda value: str(value)[:24])
@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_gradients_are_finite_differences(
    variant: str, units: Mediator, gate: Gate, loss: Loss, make: Make, pairs: Pairs
) -> None:
    model, random = make(variant, torch.float64), torch.Generator().manual_seed(2)
    over, price = masked(model, pairs, units, loss), PerUnit(0.3)
    count, rows = over.mixing.count, torch.arange(5)
    parameters = torch.rand(count, generator=random, dtype=torch.float64) * 0.8 + 0.1
    drawn = {name: value.double() for name, value in gate.draw((5, count), random, 0.4).items()}
    slope = over.slope(parameters, rows, drawn, (gate, price))

    def value(at: Tensor) -> float:
        mask = gate.mask(at, drawn)
        each = mask if mask.ndim == 2 else mask.expand(5, -1)
        # Every pair under its own mask, run by itself.
        losses = [over.losses(row)[pair] for pair, row in enumerate(each)]
        return float(torch.stack(losses).mean() + 0.3 * gate.size(at).sum())

    for _ in range(2):
        way = torch.randn(count, generator=random, dtype=torch.float64)
        difference = (value(parameters + 1e-5 * way) - value(parameters - 1e-5 * way)) / 2e-5
        assert float(slope @ way) == pytest.approx(difference, rel=1e-4, abs=1e-6)
    assert slope.abs().max() > 1e-3


@pytest.mark.parametrize("variant", ["gpt2", "llama"], indirect=True)
def test_a_divergence_has_32_bits_where_the_model_has_16(variant: str, make: Make, pairs: Pairs) -> None:
    """With 16, logarithms of probabilities are off by some hundredths: more than an edge is worth."""
    model = make(variant, torch.bfloat16)
    patching = EdgePatching(model, pairs, measure=KL())
    circuits = torch.ones(9, patching.graph.n_edges, dtype=torch.bool)
    circuits[range(1, 9), range(7, 63, 7)] = False
    over = masked(model, pairs, Edges())
    whole = stock(model, pairs.clean_batch()).float().log_softmax(-1)
    for circuit, found in zip(circuits, patching(circuits), strict=True):
        logits = over.logits(circuit.float()).float().log_softmax(-1)
        expected = (whole.exp() * (whole - logits)).sum(-1)
        assert found.dtype == torch.float32
        assert found.min() > -1e-6
        assert torch.allclose(found, expected, atol=1e-5)
        assert torch.allclose(over.losses(circuit.float()), expected, atol=1e-5)


def test_losses_are_what_they_say(make: Make, pairs: Pairs) -> None:
    model = make("gpt2")
    half = torch.full((8,), 0.5)
    logits = masked(model, pairs, Heads()).logits(half)
    rows = torch.arange(5)

    def losses(loss: Loss) -> Tensor:
        return masked(model, pairs, Heads(), loss, size=2).losses(half)

    answer, wrong = logits[rows, pairs.answers], logits[rows, pairs.wrong]
    assert torch.allclose(losses(Logit()), wrong - answer, atol=1e-5)
    assert torch.allclose(losses(Logit("wrong", None)), -wrong, atol=1e-5)
    whole = torch.log_softmax(stock(model, pairs.clean_batch()), -1)
    assert torch.allclose(losses(CrossEntropy("wrong")), -torch.log_softmax(logits, -1)[rows, pairs.wrong], atol=1e-5)
    # The sum over the vocabulary, and not its mean.
    summed = torch.nn.functional.kl_div(torch.log_softmax(logits, -1), whole, log_target=True, reduction="none").sum(1)
    assert torch.allclose(losses(KL()), summed, atol=1e-5)
    assert summed.min() > 1e-4


def test_what_is_kept_and_what_is_computed_anew_are_the_same(
    make: Make, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = make("llama"), torch.tensor([4, 1, 1])
    made = Clamp(), PerUnit(0.0)
    found = []
    for kept in (2**30, 0):
        monkeypatch.setattr(module, "KEPT", kept)
        for units in (Edges(), Heads()):
            over = masked(model, pairs, units, size=2)
            assert (over._kept is None) == (kept == 0)
            found.append(over.slope(torch.full((over.mixing.count,), 0.5), rows, {}, made))
    assert torch.allclose(found[0], found[2], atol=1e-5)
    assert torch.allclose(found[1], found[3], atol=1e-5)


def fitted(model: ip.Model, pairs: Pairs, seed: int, gate: Gate = NOISY, size: int = 2) -> Tensor:
    return fit_mask(masked(model, pairs, Edges(), size=size), gate, PerUnit(0.01), Optimiser(steps=2), seed)


def test_the_same_seed_gives_the_same_mask_and_no_global_chance_is_used(make: Make, even: Pairs) -> None:
    model = make("llama")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (fitted(model, even, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-3
    # All pairs at once and no noise leave nothing to chance.
    assert torch.equal(fitted(model, even, 0, Clamp(), size=5), fitted(model, even, 1, Clamp(), size=5))


def test_one_block_serves_all_steps(make: Make, even: Pairs) -> None:
    over = masked(make("gpt2"), even, Edges(), size=2)
    fit_mask(over, HardConcrete(), PerUnit(0.01), Optimiser(steps=5), 0)
    assert len(over._blocks) == 1


def test_edges_that_lead_nowhere_are_not_alive(make: Make, even: Pairs) -> None:
    model = make("gpt2")
    mixing = EdgeMixing(model, even, Edges(), Mix(), pruned=True)
    names, mask = list(Edges().units(model)), torch.zeros(2, 110)
    for name in ("input->a0.h1<v>", "a0.h1->logits", "input->m0", "a0.h0->logits"):
        mask[0, names.index(name)] = 0.5
    mask[1] = 1
    alive = mixing.alive(mask)
    assert alive is not None
    assert {names[int(i)] for i in alive[0].nonzero()} == {"input->a0.h1<v>", "a0.h1->logits"}
    assert alive[1].all()
    assert EdgeMixing(model, even, Edges(), Mix()).alive(mask) is None


def test_closing_edges_that_lead_nowhere_changes_no_run(make: Make, even: Pairs) -> None:
    """What arrives over them is corrupt already, or is read by nobody."""
    model = make("gpt2")
    mixing = EdgeMixing(model, even, Edges(), Mix(), pruned=True)
    over = Masked(model, even, mixing, KL(), 8)
    mask = (torch.rand(110, generator=torch.Generator().manual_seed(3)) < 0.22).float()
    alive = mixing.alive(mask)
    assert alive is not None
    assert 0 < int(alive.sum()) < int(mask.sum())
    assert (over.logits(mask) - over.logits(alive)).abs().max() < 1e-4


@dataclass(frozen=True)
class Twice(PlaceMediator):
    """Heads, and all heads of a layer at once."""

    def places(self, model: ip.Model, prompts: Any = None) -> tuple[Unit, ...]:
        heads = Heads().places(model)
        return (*heads, Unit("whole", heads[0].site))


def test_units_that_overlap_are_refused(make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        mixing_of(make("gpt2"), even, Twice(), Mix())
    assert str(failure.value) == (
        "whole overlaps with another unit at layers[0].attn.z, so one mask cannot hold both. "
        "Search over units that are apart."
    )


def test_edges_cannot_carry_every_mixture(make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        mixing_of(make("gpt2"), even, Edges(), Mix(DOUBLE, SOURCE))
    assert str(failure.value) == (
        "Edges cannot carry Value(own=2.0, source=0.0) and Value(own=0.0, source=1.0): what an edge carries is mixed "
        "with corrupt values, as Mix(BASE, SOURCE), or is its own value some times over, as Mix(BASE, ZERO). "
        "Write one of these."
    )


def test_a_step_needs_a_pair(make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        masked(make("gpt2"), even, Heads(), size=0)
    assert str(failure.value) == "A step needs at least one pair, but pairs_per_step is 0."


def test_pairs_that_do_not_differ_have_nothing_to_mix(make: Make, even: Pairs) -> None:
    same = replace(even, corrupt_tokens=even.clean_tokens)
    for units in (Heads(), Edges()):
        with pytest.raises(SearchError, match="No clean prompt differs from its corrupt one"):
            mixing_of(make("gpt2"), same, units, Mix())
    assert isinstance(mixing_of(make("gpt2"), same, Heads(), Mix(DOUBLE, ZERO)), PlaceMixing)
