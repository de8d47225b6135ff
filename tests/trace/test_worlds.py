"""Worlds: calls of the model that a block speaks of, and values that cross from one into another."""

import pytest
import torch

import interpose as ip
from interpose.errors import GraphError, RunError, TraceError

CLEAN = "When John and Mary went to the store, John gave a drink to"
CORRUPT = "When John and Mary went to the store, Mary gave a drink to"


def test_a_value_read_in_one_world_is_written_in_another(model: ip.Model) -> None:
    with model.trace() as t:
        with t.world("clean", CLEAN):
            z = model.layers[1].attn.z[:, :, 3]
        with t.world("corrupt", CORRUPT):
            model.layers[1].attn.z[:, :, 3] = z
            patched = model.logits[:, -1].save()
    with model.trace(CLEAN):
        kept = model.layers[1].attn.z[:, :, 3].save()
    with model.trace(CORRUPT):
        model.layers[1].attn.z[:, :, 3] = kept
        by_hand = model.logits[:, -1].save()
    with model.trace(CORRUPT):
        unpatched = model.logits[:, -1].save()
    assert torch.equal(patched, by_hand)
    assert not torch.allclose(patched, unpatched)


def test_worlds_run_in_the_order_they_need_whatever_order_they_are_written_in(
    model: ip.Model, ids: torch.Tensor
) -> None:
    with model.trace() as t:
        with t.world("first", ids):
            early = model.layers[0].output
        with t.world("second", ids.flip(0)):
            model.layers[0].output = early
            late = model.layers[2].output
        with t.world("third", ids):
            model.layers[2].output = late * 1
            logits = model.logits.save()
    with model.trace(ids):
        plain = model.logits.save()
    assert torch.equal(logits, plain)
    assert [world.name for world in model.plan(t.graph).worlds] == ["first", "second", "third"]


def test_computation_after_the_worlds_uses_values_of_all(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace() as t:
        with t.world("a", ids):
            a = model.logits
        with t.world("b", ids.flip(1)):
            b = model.logits
        difference = (a - b).abs().max().save("difference")
    with model.trace(ids):
        a = model.logits.save()
    with model.trace(ids.flip(1)):
        b = model.logits.save()
    assert torch.equal(difference, (a - b).abs().max())
    assert t.saved["difference"] is not None


def test_worlds_do_not_nest(model: ip.Model, ids: torch.Tensor) -> None:
    with pytest.raises(TraceError, match="the world 'b' is opened inside the world 'a'"):  # noqa: SIM117
        with model.trace() as t, t.world("a", ids), t.world("b", ids):
            pass
    with pytest.raises(TraceError, match="the world 'b' is opened inside the world 'main'"):  # noqa: SIM117
        with model.trace(ids) as t, t.world("b", ids):
            pass
    with pytest.raises(TraceError, match="already is a world named 'a'"), model.trace() as t:
        for _ in range(2):
            with t.world("a", ids):
                pass
    with pytest.raises(TraceError, match="the base 'x' of the world 'a' is no world of this block"):  # noqa: SIM117
        with model.trace() as t, t.world("a", ids, base="x"):
            pass


def test_blocks_of_one_model_do_not_nest(model: ip.Model, ids: torch.Tensor) -> None:
    with pytest.raises(TraceError, match="opened inside another"), model.trace(ids), model.trace(ids):
        pass
    with model.trace(ids):
        logits = model.logits.save()
    assert torch.equal(logits, model.network(ids, use_cache=False).logits)


def test_a_block_is_used_once(model: ip.Model, ids: torch.Tensor) -> None:
    block = model.trace(ids)
    with block:
        model.logits.save()
    with pytest.raises(TraceError, match="this block has been used. Open another"), block:
        pass


def test_blocks_of_two_models_nest_and_their_values_do_not_cross(
    model: ip.Model, gpt2: ip.Model, ids: torch.Tensor
) -> None:
    with model.trace(ids):
        with gpt2.trace(ids):
            other = gpt2.layers[0].output.save()
            mine = model.layers[0].output.save()
        assert type(other) is torch.Tensor
        model.layers[1].output += other  # by now a plain tensor, so that it may be used here
        logits = model.logits.save()
    assert type(mine) is torch.Tensor
    assert logits.shape == (2, 7, 50)
    for cross in (
        lambda a, b: a + b,
        lambda a, b: setattr(model.layers[1], "output", b),
        lambda a, b: ip.grad(a.sum(), b),
    ):
        with pytest.raises(TraceError, match="belongs to another block"), model.trace(ids), gpt2.trace(ids):
            a, b = model.layers[0].output, gpt2.layers[0].output
            cross(a, b)


def test_a_value_of_the_other_block_is_not_taken_for_one_of_this(
    model: ip.Model, gpt2: ip.Model, ids: torch.Tensor
) -> None:
    """Two blocks count their steps alike, so the same number may mean a value in each."""
    with pytest.raises(TraceError, match="belongs to another block"), model.trace(ids), gpt2.trace(ids):
        h = model.layers[0].output
        h += 1
        k = gpt2.layers[0].output
        k += 1
        model.layers[0].output = k


def test_worlds_that_wait_for_each_other_are_refused(model: ip.Model, ids: torch.Tensor) -> None:
    with pytest.raises(GraphError, match=r"wait for each other.*open one more world"), model.trace() as t:
        with t.world("a", ids):
            early = model.layers[0].output
        with t.world("b", ids):
            model.layers[0].output = early
            late = model.layers[2].output
        with t.world("c", ids):
            pass
        t.worlds.open = "a"  # as if one could go back into a closed world
        model.layers[1].output = late
        model.logits.save()
        t.worlds.open = None


def test_a_value_cannot_be_written_before_it_exists(model: ip.Model, ids: torch.Tensor) -> None:
    message = rf"^{__file__}:\d+: layers\[0\]\.output is written .* made later in the same pass"
    with pytest.raises(RunError, match=message), model.trace(ids):
        model.layers[0].output = model.layers[1].output
        model.logits.save()


def test_a_feed_without_a_world_or_a_tensor_says_which(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(run=False) as t, t.world("a", ids):
        strength = t.input("strength", torch.tensor(1.0))
        model.layers[0].output *= strength
        model.logits.save("logits")
    with pytest.raises(RunError, match=r"no inputs for the world 'a'; it has \['b'\]"):
        next(model.backend.run_many([t.graph], [ip.Feed({"b": t.feed.worlds["a"]}, t.feed.tensors)]))
    with pytest.raises(RunError, match="no tensor named 'strength'"):
        next(model.backend.run_many([t.graph], [ip.Feed(t.feed.worlds)]))
    runs = model.backend.run_many([t.graph] * 2, [t.feed, t.feed.with_(strength=torch.tensor(0.0))])
    whole, none = (run["logits"] for run in runs)
    with model.trace(ids):
        model.layers[0].output = 0
        zeroed = model.logits.save()
    assert torch.equal(none, zeroed)
    assert torch.equal(whole, model.network(ids, use_cache=False).logits)


def test_an_input_needs_a_name_of_its_own(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids, run=False) as t:
        _ = model.layers[0].output + torch.ones(24)
        with pytest.raises(TraceError, match="already has a tensor named 'c0'"):
            t.input("c0", torch.ones(1))
        t.input("c1", torch.ones(1))
        _ = model.layers[0].output + torch.zeros(24)
    assert set(t.feed.tensors) == {"c0", "c1", "c2"}


def test_a_world_says_what_it_is_a_variation_of(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace() as t:
        with t.world("clean", ids):
            model.logits.save()
        with t.world("patched", ids, base="clean"):
            model.layers[0].output[:, -1] = 0
            model.logits.save()
    assert 'world("patched", base="clean"):' in str(t.graph)


def test_worlds_take_modules_arguments_by_position_and_by_name() -> None:
    class Sum(torch.nn.Module):
        def forward(self, a: torch.Tensor, *, b: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            return (a + b) * scale

    model = ip.wrap(Sum())
    with model.trace(torch.ones(2), b=torch.full((2,), 2.0), scale=3.0):
        total = model.output.save()
    with model.trace() as t, t.world("named", a=torch.ones(2), b=torch.ones(2)):
        first = model.input.save()
        args = model.module("").inputs.save()
        other = model.output.save()
    assert torch.equal(total, torch.full((2,), 9.0))
    assert torch.equal(other, torch.full((2,), 2.0))
    assert torch.equal(first, torch.ones(2))
    assert list(args[1]) == ["a", "b"]
