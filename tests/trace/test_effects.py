"""Skipping modules, stopping early, saying values, calling functions; weights and gradients over several worlds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import RunError, ShapeError, SiteError, TraceError


@pytest.fixture(params=["llama", "gpt2"])
def either(request: pytest.FixtureRequest, model: ip.Model, gpt2: ip.Model) -> ip.Model:
    return model if request.param == "llama" else gpt2


def calls(model: ip.Model, path: str) -> tuple[list[int], Any]:
    seen: list[int] = []
    return seen, model.network.get_submodule(path).register_forward_pre_hook(lambda *_: seen.append(1))


def test_a_skipped_layer_passes_its_input_on_and_is_not_run(either: ip.Model, ids: torch.Tensor) -> None:
    path = f"{either.table().layers}.1"
    seen, handle = calls(either, f"{path}.{either.table().mlp}")
    with either.trace(ids):
        either.layers[1].skip()
        before, after = either.layers[1].input.save(), either.layers[1].output.save()
        logits = either.logits.save()
    handle.remove()
    assert not seen
    assert torch.equal(before, after)
    layer = either.network.get_submodule(path)
    handle = layer.register_forward_hook(lambda module, args, output: args[0])
    with torch.no_grad():
        expected = either.network(ids).logits
    handle.remove()
    assert torch.equal(logits, expected)


def test_a_skipped_block_adds_nothing_or_what_is_given(either: ip.Model, ids: torch.Tensor) -> None:
    v = torch.randn(24)
    with either.trace(ids):
        either.layers[0].attn.skip()
        either.layers[1].mlp.skip(v)
        stream, mid = either.layers[0].input.save(), either.layers[0].mid.save()
        added, logits = either.layers[1].mlp.output.save(), either.logits.save()
    with either.trace(ids):
        either.layers[0].attn.output = 0
        either.layers[1].mlp.output = v
        expected = either.logits.save()
    assert torch.equal(stream, mid)
    assert torch.equal(added, v.expand(2, 7, 24))
    assert torch.allclose(logits, expected, atol=1e-5)


def test_a_value_of_another_world_stands_for_a_layer(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace() as t:
        with t.world("donor", ids.flip(0)):
            donor = model.layers[1].output
        with t.world("main", ids):
            model.layers[1].skip(donor)
            logits = model.logits.save()
    with model.trace(ids.flip(0)):
        expected = model.logits.save()
    assert torch.equal(logits, expected)


def test_any_module_can_be_skipped(net: ip.Model, x: torch.Tensor) -> None:
    with net.trace(x):
        net.module("2").skip(net.module("1").output)
        out = net.output.save()
    parts = net.network
    with torch.no_grad():
        expected = parts[4](parts[3](parts[1](parts[0](x))))  # type: ignore[index]
    assert torch.equal(out, expected)


def test_what_cannot_be_skipped_says_why(model: ip.Model, net: ip.Model, ids: torch.Tensor, x: torch.Tensor) -> None:
    with (
        pytest.raises(ShapeError, match=r"test_effects.py:\d+: layers\[0\].output has shape \(2, 7, 24\) and cannot"),
        model.trace(ids),
    ):
        model.layers[0].skip(torch.zeros(23))
    with (
        pytest.raises(
            TraceError, match=r'module\("2"\).output has no value of its own to pass on; write .skip\(value\)'
        ),
        net.trace(x),
    ):
        net.module("2").skip(None)
    with (
        pytest.raises(RunError, match="skipped with a value that is made later in the same pass"),
        model.trace(ids),
    ):
        model.layers[0].skip(model.layers[2].input)
        model.logits.save()
    with (
        pytest.raises(RunError, match=r"without reaching layers\[1\].attn.z.*or its call|lies in one that is skipped"),
        model.trace(ids),
    ):
        model.layers[1].skip()
        model.layers[1].attn.z.save()
        model.logits.save()
    with (
        pytest.raises(SiteError, match=r"norm has no skip: only layers, their attn and their mlp"),
        model.trace(ids),
    ):
        model.norm.skip(1.0)
        model.logits.save()


def test_gradients_pass_round_a_skipped_layer(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids):
        h = model.layers[0].output
        model.layers[1].skip()
        g = ip.grad(model.logits[:, -1, 5].sum(), h).save()
    with model.trace(ids):
        h = model.layers[0].output
        model.layers[1].output = h
        expected = ip.grad(model.logits[:, -1, 5].sum(), h).save()
    assert torch.allclose(g, expected, atol=1e-6)
    assert g.abs().max() > 0


def test_stop_ends_the_pass_after_its_sites(net: ip.Model, x: torch.Tensor) -> None:
    seen, handle = calls(net, "4")
    with net.trace(x) as t:
        value = net.module("1").output.save()
        t.stop()
    handle.remove()
    assert not seen
    with torch.no_grad():
        assert torch.equal(value, net.network[:2](x))  # type: ignore[index]


def test_log_says_values_when_they_are_made(model: ip.Model, ids: torch.Tensor, capsys: Any) -> None:
    with model.trace(ids) as t:
        h = model.layers[1].output
        t.log("size", h.shape[0] * h[0, 0].norm() * 0 + 2)
        t.log("first", h[0, 0, :3] * 0 + 1)
        t.log("stream", h)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "size: 2"
    assert said[1] == "first: float32 [3] [1.0, 1.0, 1.0]"
    assert said[2].startswith("stream: float32 [2, 7, 24] mean ")
    with model.generate(ids, max_new_tokens=2, stop=()) as t, t.steps():
        t.log("rows", model.layers[0].output[:, -1].sum() * 0 + 7)
    assert capsys.readouterr().out == "step 0, rows: 7\nstep 1, rows: 7\n"
    with (
        pytest.raises(TraceError, match=r"t\.log takes a value of the block, not a int"),
        model.trace(ids) as t,
    ):
        t.log("x", 3)


def test_apply_calls_a_function_with_real_tensors(model: ip.Model, ids: torch.Tensor) -> None:
    seen: list[torch.Tensor] = []

    def half(value: torch.Tensor, scale: float) -> torch.Tensor:
        seen.append(value.clone())
        return value * scale

    with model.trace(ids) as t:
        h = model.layers[1].output
        changed = t.apply(half, h, 0.5, like=h)
        assert changed.shape == (2, 7, 24)
        model.layers[1].output = changed
        logits = model.logits.save()
    with model.trace(ids):
        kept = model.layers[1].output.save()
        model.layers[1].output = model.layers[1].output * 0.5
        expected = model.logits.save()
    assert torch.equal(logits, expected)
    assert len(seen) == 1
    assert torch.equal(seen[0], kept)


def test_apply_may_only_look_and_is_called_once_at_each_step(model: ip.Model, ids: torch.Tensor) -> None:
    norms: list[float] = []
    with model.generate(ids, max_new_tokens=4, stop=()) as t, t.steps():
        t.apply(lambda value: norms.append(float(value.norm())), model.layers[1].output)
    assert len(norms) == 4


def test_apply_on_a_network_that_works_in_place_is_called_once() -> None:
    net = ip.wrap(torch.nn.Sequential(torch.nn.Linear(3, 3), Doubling(), torch.nn.Linear(3, 2)))
    seen: list[torch.Tensor] = []
    x = torch.randn(2, 3)
    with net.trace(x) as t:
        t.apply(lambda value: seen.append(value), net.module("0").output)
        net.module("2").output.save()
    with torch.no_grad():
        assert torch.equal(seen[0], net.network[0](x))  # type: ignore[index]
    assert len(seen) == 1


class Doubling(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2)


def test_an_error_in_a_function_names_the_users_line(model: ip.Model, ids: torch.Tensor) -> None:
    def broken(value: torch.Tensor) -> None:
        raise KeyError("nothing here")

    with (
        pytest.raises(RunError, match=r"test_effects.py:\d+: broken failed: 'nothing here'"),
        model.trace(ids) as t,
    ):
        t.apply(broken, model.layers[0].output)


def test_gradients_pass_through_several_worlds(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace() as t:
        with t.world("donor", ids.flip(0)):
            donor = model.layers[0].output
        with t.world("main", ids):
            model.layers[1].output[:, -1] = donor[:, -1]
            g = ip.grad(model.logits[:, -1, 5].sum(), donor).save()
    with model.trace(ids.flip(0)):
        plain = model.layers[0].output.save()
    leaf = plain.clone().requires_grad_()
    layer = model.network.get_submodule("model.layers.1")

    def put(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        return torch.cat([output[:, :-1], leaf[:, -1:]], 1)

    handle = layer.register_forward_hook(put)
    (expected,) = torch.autograd.grad(model.network(ids).logits[:, -1, 5].sum(), leaf)
    handle.remove()
    assert torch.allclose(g, expected, atol=1e-6)
    assert g[:, -1].abs().max() > 0
    assert g[:, :-1].abs().max() == 0


def test_weights_are_values(model: ip.Model, ids: torch.Tensor) -> None:
    weight: Callable[[], torch.Tensor] = lambda: model.network.get_parameter("lm_head.weight")  # noqa: E731
    with model.trace(ids) as t:
        direction = t.weight("lm_head.weight")[5]
        model.layers[2].output[:, -1] += direction
        captured = torch.nn.functional.linear(model.norm.output, weight()).save()
        logits = model.logits.save()
    assert torch.allclose(captured, logits, atol=1e-5)
    assert sum(type(node).__name__ == "Weight" for node in t.graph.nodes) == 1
    assert not t.feed.tensors


def test_functions_get_the_numbers_that_are_written(model: ip.Model, ids: torch.Tensor) -> None:
    seen: list[Any] = []

    def keep(value: torch.Tensor, number: Any) -> None:
        seen.append(number)

    for number in (1, True, 1.0):
        with model.trace(ids) as t:
            t.apply(keep, model.layers[0].output, number)
    assert [repr(number) for number in seen] == ["1", "True", "1.0"]


def test_a_function_that_cannot_be_compared_is_refused(model: ip.Model, ids: torch.Tensor) -> None:
    @dataclass
    class Scale:
        by: float

        def __call__(self, value: torch.Tensor) -> torch.Tensor:
            return value * self.by

    with (
        pytest.raises(TraceError, match=r"^.*test_effects.py:\d+: .*; give a function, or wrap it in a lambda"),
        model.trace(ids) as t,
    ):
        t.apply(Scale(2.0), model.layers[0].output)


def test_finding_a_shape_calls_and_says_nothing(net: ip.Model, x: torch.Tensor, capsys: Any) -> None:
    seen: list[torch.Tensor] = []
    with net.trace(x) as t:
        first = net.module("0").output.save("wanted")
        t.log("first", first.sum() * 0 + 1)
        t.apply(seen.append, first)
        double = t.apply(lambda value: 2 * value, first, like=torch.empty(3, 8))
        net.module("1").output = double
        out = net.output
        assert out.shape == (3, 2)  # no table tells it: the network is tried without data
        assert not seen
        out.save()
    assert capsys.readouterr().out == "first: 1\n"
    assert len(seen) == 1
    parts = net.network
    with torch.no_grad():
        assert torch.equal(t.saved["wanted"], parts[0](x))  # type: ignore[index]
        expected = parts[4](parts[3](parts[2](2 * first)))  # type: ignore[index]
    assert torch.allclose(out, expected)


def test_the_shape_of_what_a_function_gives_must_be_told(net: ip.Model, x: torch.Tensor) -> None:
    message = r"test_effects.py:\d+: the shape of what a function gives .*like=\.\.\.\) at .*:\d+ a value"
    with pytest.raises(TraceError, match=message), net.trace(x) as t:
        assert t.apply(torch.relu, net.module("0").output).shape


def test_the_shape_of_a_modules_value_in_a_generation(model: ip.Model, ids: torch.Tensor) -> None:
    with model.generate(ids, max_new_tokens=4, temperature=1.0, top_k=3, stop=(49,)) as t:
        with t.steps():
            first = model.module("model.layers.0").output.shape  # that of the prompt, which is one of them
        with t.steps(1):
            later = model.module("model.layers.0").output.shape
        with t.step(2):
            one = model.module("model.layers.0").output.shape
    assert (first, later, one) == ((2, 7, 24), (2, 1, 24), (2, 1, 24))


class Counting(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * bool(x.sum() > 0)


def test_a_shape_that_only_a_run_can_tell(x: torch.Tensor) -> None:
    net = ip.wrap(torch.nn.Sequential(torch.nn.Linear(4, 4), Counting()))
    message = r"test_effects.py:\d+: the shape of this value .*\(.*\)\. Save it and look at it after the block"
    with pytest.raises(TraceError, match=message), net.trace(x):
        assert net.output.shape


def test_the_tokens_of_a_generation_keep_their_name(model: ip.Model, ids: torch.Tensor) -> None:
    with (
        pytest.raises(TraceError, match=r"^.*test_effects.py:\d+: 'main.tokens' is where .* Choose another name"),
        model.generate(ids, max_new_tokens=2) as t,
        t.step(0),
    ):
        model.layers[0].output.save("main.tokens")
    with pytest.raises(TraceError, match="already saved as 'b.tokens'"), model.trace() as t:
        with t.world("a", ids):
            model.layers[0].output.save("b.tokens")
        with t.world("b", ids, max_new_tokens=2):
            pass


class Two(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return x, {"half": x / 2}


def test_log_says_structures_and_truths_in_one_line(x: torch.Tensor, capsys: Any) -> None:
    net = ip.wrap(Two())
    with net.trace(x) as t:
        t.log("both", net.output)
        t.log("many", (net.output[0] ** 2).sum() > 0)
    assert capsys.readouterr().out == "both: tuple(float32 [3, 4], dict(half: float32 [3, 4]))\nmany: True\n"


def test_a_skip_stands_above_what_is_said_of_its_output(model: ip.Model, net: ip.Model, ids: Any, x: Any) -> None:
    message = r"test_effects.py:\d+: layers\[1\].output has been read, written or skipped above"
    with pytest.raises(TraceError, match=message), model.trace(ids):
        model.layers[1].output.save()
        model.layers[1].skip()
    with pytest.raises(TraceError, match=message), model.trace(ids):
        model.layers[1].skip()
        model.layers[1].skip()
    with pytest.raises(TraceError, match="one call of a module cannot be skipped by itself"), net.trace(x):
        net.module("2").call(1).skip(net.module("1").output)


def test_a_skip_takes_the_type_of_its_site(gpt2: ip.Model, ids: torch.Tensor) -> None:
    with gpt2.trace(ids):
        gpt2.layers[1].mlp.skip(torch.ones(24, dtype=torch.float64))
        added = gpt2.layers[1].mlp.output.save()
    assert added.dtype == torch.float32
    assert added.unique().tolist() == [1.0]


def test_in_inference_mode_a_network_that_works_in_place_is_read_right() -> None:
    net = ip.wrap(torch.nn.Sequential(torch.nn.Linear(3, 3), Doubling()))
    x = torch.randn(2, 3)
    with torch.inference_mode(), net.trace(x):
        value = net.module("0").output.save()
    with torch.no_grad():
        assert torch.equal(value, net.network[0](x))  # type: ignore[index]


class Pair(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Both()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, _ = self.inner(x)
        return value.add_(1)


class Both(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return x * 2, None


def test_a_structure_that_is_changed_in_place_later_is_saved_as_it_was() -> None:
    net = ip.wrap(Pair())
    x = torch.randn(2, 3)
    with net.trace(x):
        found = net.module("inner").output.save()
    assert torch.equal(found[0], x * 2)


def test_saved_values_share_memory_where_hooks_would_find_one_tensor(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids) as t:
        first, second = model.layers[0].output.save(), model.layers[1].input.save()
        apart = model.layers[0].output.clone().save("apart")
        model.layers[1].input = model.layers[1].input * 2
        changed = model.layers[1].input.save()
    kept = apart.clone()
    assert torch.equal(first, kept) and torch.equal(changed, 2 * kept)
    first.zero_()
    assert not second.any()
    assert torch.equal(apart, kept) and torch.equal(t.saved["apart"], kept) and torch.equal(changed, 2 * kept)


def test_what_is_done_to_a_saved_tensor_says_nothing_of_the_networks_own(x: torch.Tensor) -> None:
    net = ip.wrap(torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(x.shape[-1], 3)))
    with net.trace(x):
        found = net.module("0").output.save()
    found.requires_grad_()
    assert not x.requires_grad
    part = torch.ones(3, requires_grad=True)
    with net.trace(x) as t:
        net.module("1").output[:, :2].save("part")
    t.saved["part"] += part[:2]
    assert t.saved["part"].requires_grad


def test_a_mask_that_a_user_changes_is_no_other_runs_mask(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids):
        before = model.logits.save()
    model.batch(ids).kwargs["attention_mask"][:, :4] = 0
    with model.trace(ids):
        after = model.logits.save()
    assert torch.equal(before, after)
