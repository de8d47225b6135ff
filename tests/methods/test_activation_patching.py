"""Activation patching against hooks on the stock network, written as one would write them by hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import interpose as ip
from interpose.mediators import AttentionBlocks, Edges, Heads, MLPs, Positions, Streams, TokenRoles
from interpose.mediators.base import PlaceMediator
from interpose.methods import ActivationPatching
from interpose.search.progress import watching
from interpose.tasks.base import Pairs

Make = Callable[..., ip.Model]
Change = Callable[[Tensor], Tensor | None]

# Where each kind of unit lives: a module of a layer, and whether the unit is what it takes or what it gives.
PLACES: dict[str, dict[str, tuple[str, str]]] = {
    "gpt2": {"a": ("attn", "out"), "m": ("mlp", "out"), "h": ("attn.c_proj", "in")},
    "neox": {"a": ("attention", "out"), "m": ("mlp", "out"), "h": ("attention.dense", "in")},
    "llama": {"a": ("self_attn", "out"), "m": ("mlp", "out"), "h": ("self_attn.o_proj", "in")},
    "gemma3": {
        "a": ("post_attention_layernorm", "out"),
        "m": ("post_feedforward_layernorm", "out"),
        "h": ("self_attn.o_proj", "in"),
    },
}
LAYERS = {"gpt2": "transformer.h", "neox": "gpt_neox.layers"}
UNITS: dict[str, PlaceMediator] = {"s": Streams(), "a": AttentionBlocks(), "m": MLPs(), "h": Heads()}


@contextmanager
def hooked(network: Any, variant: str, kind: str, layer: int, visit: Change) -> Iterator[None]:
    """Visit the value of one kind of unit; what it gives back, if anything, takes its place."""
    path, side = {"s": ("", "out"), **PLACES[variant]}[kind]
    module = network.get_submodule(LAYERS.get(variant, "model.layers"))[layer].get_submodule(path)

    def before(_: Any, args: tuple[Any, ...]) -> Any:
        new = visit(args[0])
        return None if new is None else (new, *args[1:])

    def after(_: Any, __: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        new = visit(first)
        if new is None:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = module.register_forward_pre_hook(before) if side == "in" else module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def effect(model: ip.Model, variant: str, pairs: Pairs, unit: tuple[str, int, Any]) -> float:
    """The mean fall of the behaviour when one unit takes its corrupt value; `unit` is kind, layer, index."""
    kind, layer, index = unit
    seen: list[Tensor] = []
    rows = torch.arange(len(pairs))

    def behaviour(batch: Any) -> Tensor:
        with torch.no_grad():
            logits = model.network(**batch.kwargs).logits[:, -1]
        return logits[rows, pairs.answers] - logits[rows, pairs.wrong]

    def split(value: Tensor) -> Tensor:
        return value.unflatten(-1, (2, -1)) if kind == "h" else value

    with hooked(model.network, variant, kind, layer, lambda value: seen.append(value.clone())):
        behaviour(pairs.corrupt_batch())

    def patch(value: Tensor) -> Tensor:
        new = value.clone()
        split(new)[index] = split(seen[0])[index]
        return new

    with hooked(model.network, variant, kind, layer, patch):
        patched = behaviour(pairs.clean_batch())
    return float((behaviour(pairs.clean_batch()) - patched).mean())


def whole_units(kind: str) -> list[tuple[str, int, Any]]:
    everything = slice(None)
    heads = [(everything, everything, head) for head in range(2)] if kind == "h" else [everything]
    return [(kind, layer, index) for layer in range(2) for index in heads]


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("kind", list(UNITS))
@pytest.mark.parametrize("variant", list(PLACES))
def test_a_score_is_the_fall_under_a_hook(variant: str, kind: str, make: Make, pairs: Pairs) -> None:
    model = make(variant)
    scores = ActivationPatching(batch_size=2).score(model, pairs, UNITS[kind])
    expected = [effect(model, variant, pairs, unit) for unit in whole_units(kind)]
    assert scores.values.tolist() == pytest.approx(expected, abs=3e-5)
    assert max(map(abs, expected)) > 0.003


@pytest.mark.parametrize("kind", ["s", "h"])
def test_a_position_is_counted_from_the_last_token(kind: str, make: Make, pairs: Pairs) -> None:
    model = make("llama")
    scores = ActivationPatching().score(model, pairs, Positions(of=UNITS[kind]))
    expected = []
    for name, layer, index in whole_units(kind):
        for position in range(-6, 0):
            at = (slice(None), position) if kind == "s" else (slice(None), position, index[2])
            expected.append(effect(model, "llama", pairs, (name, layer, at)))
    assert scores.values.tolist() == pytest.approx(expected, abs=3e-5)
    assert scores.units[:2] == (("s0@-6", "s0@-5") if kind == "s" else ("a0.h0@-6", "a0.h0@-5"))
    assert max(map(abs, expected)) > 0.01


ROLES = {"first": torch.tensor([-5, -3, -4]), "changed": torch.tensor([-3, -1, -3])}


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("kind", list(UNITS))
@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_a_unit_at_a_role_is_patched_where_each_prompt_has_it(
    variant: str, kind: str, make: Make, pairs: Pairs
) -> None:
    model, pairs = make(variant), replace(pairs, roles=ROLES)
    scores = ActivationPatching(batch_size=2).score(model, pairs, TokenRoles(of=UNITS[kind]))
    expected = []
    for name, layer, index in whole_units(kind):
        for where in ROLES.values():
            at = (torch.arange(3), where) if kind != "h" else (torch.arange(3), where, index[2])
            expected.append(effect(model, variant, pairs, (name, layer, at)))
    assert scores.values.tolist() == pytest.approx(expected, abs=3e-5)
    assert scores.units[0] == f"{scores.units[0].split('@')[0]}@first"
    assert max(map(abs, expected)) > 0.003


def test_units_at_roles_share_the_unchanged_run_and_go_together(make: Make, even: Pairs, passes: list[int]) -> None:
    before = torch.tensor([-6, -5, -4])  # where nothing differs yet, so that no run is needed
    pairs = replace(even, roles={**ROLES, "before": before})
    scores = ActivationPatching().score(make("llama"), pairs, TokenRoles(of=Heads()))
    assert passes == [4 * len(ROLES)]
    assert all(abs(scores[f"a1.h{head}@before"]) < 1e-6 for head in range(2))


def test_what_lies_before_the_first_difference_does_nothing(make: Make, even: Pairs) -> None:
    scores = ActivationPatching().score(make("llama"), even, Positions())
    assert all(abs(scores[f"s{layer}@{position}"]) < 1e-6 for layer in range(2) for position in (-6, -5, -4))
    assert all(abs(scores[f"s1@{position}"]) < 1e-6 for position in range(-6, -1))


def test_the_last_stream_at_the_last_position_carries_the_whole_effect(make: Make, pairs: Pairs) -> None:
    from interpose.search.behaviour import behaviour

    model = make("llama")
    found = behaviour(model, pairs)
    whole = float((found["clean"] - found["corrupt"]).mean())
    assert ActivationPatching().score(model, pairs, Positions())["s1@-1"] == pytest.approx(whole, abs=1e-5)
    assert ActivationPatching().score(model, pairs, Streams())["s1"] == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_an_edge_is_scored_by_the_fall_when_it_alone_is_cut(make: Make, pairs: Pairs) -> None:
    from interpose.search.edge_patching import EdgePatching

    model = make("gpt2")
    scores = ActivationPatching(batch_size=2).score(model, pairs, Edges())
    patching = EdgePatching(model, pairs)
    masks = torch.ones(4, len(scores), dtype=torch.bool)
    edges = [0, 20, 33, len(scores) - 1]
    masks[range(4), edges] = False
    whole, *cut = patching(torch.cat([torch.ones(1, len(scores), dtype=torch.bool), masks]))
    expected = [float((whole - each).mean()) for each in cut]
    assert scores.values[edges].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_head_that_writes_the_answer_is_scored_above_zero_and_its_opposite_below(make: Make, even: Pairs) -> None:
    """Ablating the best head by a hook lowers the behaviour, ablating the worst raises it."""
    model = make("llama")
    scores = ActivationPatching().score(model, even, Heads())
    best, worst = scores.top(1)[0], scores.top(4)[-1]
    assert best.score > 0 > worst.score
    for unit in (best, worst):
        layer, head = int(unit.unit[1]), int(unit.unit[-1])
        fall = effect(model, "llama", even, ("h", layer, (slice(None), slice(None), head)))
        assert fall == pytest.approx(unit.score, abs=3e-5)


def test_progress_is_told_for_every_unit_of_every_batch(make: Make, even: Pairs) -> None:
    told: list[tuple[str, int, int]] = []
    with watching(lambda *progress: told.append(progress)):
        ActivationPatching(batch_size=2).score(make("llama"), even, Streams())
    # Of each of two batches one run without a patch and one a unit; how far it is when is the backend's to say.
    done = [now for _, now, _ in told]
    assert {(what, total) for what, _, total in told} == {("patching units", 2 * (1 + 2))}
    assert (done[0], done[-1]) == (0, 6)
    assert done == sorted(set(done))
