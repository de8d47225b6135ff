"""Gradients: those of the stock network, at every site, inside the graph, through two worlds."""

import copy
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import RunError


def number(logits: torch.Tensor) -> torch.Tensor:
    return (logits[:, -1, 7] - logits[:, -1, 3]).sum()


def autograd(network: Any, ids: torch.Tensor, path: str, side: str = "output") -> torch.Tensor:
    """The derivative of the number by what a module gives or takes, by torch alone."""
    seen = []

    def give(module: Any, args: Any, output: Any) -> Any:
        value = (output[0] if isinstance(output, tuple) else output).detach().requires_grad_()
        seen.append(value)
        return (value, *output[1:]) if isinstance(output, tuple) else value

    def take(module: Any, args: Any) -> Any:
        seen.append(args[0].detach().requires_grad_())
        return (seen[0], *args[1:])

    module = network.get_submodule(path)
    handle = module.register_forward_hook(give) if side == "output" else module.register_forward_pre_hook(take)
    try:
        logits = network(ids, use_cache=False).logits
    finally:
        handle.remove()
    return torch.autograd.grad(number(logits), seen[0])[0]


PLACES = [
    ("layers.1.output", "model.layers.1", "output"),
    ("layers.1.attn.output", "model.layers.1.self_attn", "output"),
    ("layers.1.attn.q", "model.layers.1.self_attn.q_proj", "output"),
    ("layers.1.attn.k", "model.layers.1.self_attn.k_proj", "output"),
    ("layers.1.attn.v", "model.layers.1.self_attn.v_proj", "output"),
    ("layers.1.attn.z", "model.layers.1.self_attn.o_proj", "input"),
    ("layers.1.mlp.neurons", "model.layers.1.mlp.down_proj", "input"),
    ("embed", "model.embed_tokens", "output"),
    ("norm.output", "model.norm", "output"),
]


@pytest.mark.parametrize(("site", "path", "side"), PLACES)
def test_a_gradient_is_that_of_autograd_on_the_stock_network(
    model: ip.Model, ids: torch.Tensor, site: str, path: str, side: str
) -> None:
    with model.trace(ids):
        value = model.site(site)
        gradient = ip.grad(number(model.logits), value).save()
        logits = model.logits.save()
    expected = autograd(model.network, ids, path, side)
    assert gradient.shape == value_shape(model, ids, site)
    assert torch.equal(gradient.flatten(), expected.flatten())
    assert torch.equal(logits, model.network(ids, use_cache=False).logits)


def value_shape(model: ip.Model, ids: torch.Tensor, site: str) -> torch.Size:
    with model.trace(ids):
        return model.site(site).shape


COMPUTED = ["input", "mid", "attn.query", "attn.key", "attn.value", "attn.scores", "attn.pattern", "attn.result"]


@pytest.mark.parametrize("name", [*COMPUTED, "attn.z", "mlp.output", "mlp.input"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_gradient_is_the_slope_that_small_changes_show(
    model: ip.Model, gpt2: ip.Model, ids: torch.Tensor, name: str, family: str
) -> None:
    model = model if family == "llama" else gpt2
    site = f"layers.1.{name}"
    with model.trace(ids):
        value = model.site(site).save()
        gradient = ip.grad(number(model.logits), value).save()
    visible = value.abs() < 1e30
    direction = torch.randn(value.shape, generator=torch.manual_seed(5)) * visible
    step = 2e-3 / float(direction.abs().max())
    ends = []
    for sign in (1, -1):
        with model.trace(ids):
            here = model.site(site)
            here += sign * step * direction
            ends.append(number(model.logits).save())
    slope = float(ends[0] - ends[1]) / (2 * step)
    promised = float((gradient * direction).sum())
    assert abs(slope - promised) <= 0.02 * max(abs(promised), float(gradient.abs().max()))


def test_a_gradient_is_a_value_of_the_block(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace() as t:
        with t.world("measure", ids):
            h = model.layers[0].output
            slope = ip.grad(number(model.logits), h)
        with t.world("push", ids):
            model.layers[0].output += 0.1 * slope / slope.norm()
            pushed = number(model.logits).save()
        kept = slope.save()
    expected = autograd(model.network, ids, "model.layers.0")
    assert torch.equal(kept, expected)
    with model.trace(ids):
        model.layers[0].output += 0.1 * expected / expected.norm()
        by_hand = number(model.logits).save()
        before = number(model.logits)
    assert torch.equal(pushed, by_hand)
    assert before is not None


def test_a_gradient_crosses_worlds(net: ip.Model, x: torch.Tensor) -> None:
    with net.trace() as t:
        with t.world("source", x):
            h = net.module("0").output
        with t.world("target", x.flip(0)):
            net.module("2").output = net.module("2").output + h
            gradient = ip.grad(net.output.pow(2).sum(), h).save()
    leaf = net.network[0](x).detach().requires_grad_()
    inner = net.network[2](net.network[1](net.network[0](x.flip(0)))) + leaf
    (expected,) = torch.autograd.grad(net.network[3:](inner).pow(2).sum(), leaf)
    assert torch.equal(gradient, expected)


def test_several_numbers_and_several_values(net: ip.Model, x: torch.Tensor) -> None:
    with net.trace(x):
        first, second = net.module("0").output, net.module("2").output
        total, one = net.output.sum(), net.output[0, 1]
        found = [ip.grad(y, v).save() for y in (total, one) for v in (first, second)]
        early = ip.grad(second.sin().sum(), first).save()
    a = net.network[0](x)
    b = net.network[2](net.network[1](a))
    y = net.network[3:](b)
    wanted = [torch.autograd.grad(n, v, retain_graph=True)[0] for n in (y.sum(), y[0, 1]) for v in (a, b)]
    assert all(torch.allclose(got, want, atol=1e-7) for got, want in zip(found, wanted, strict=True))
    assert torch.allclose(early, torch.autograd.grad(b.sin().sum(), a)[0], atol=1e-7)


def test_gradients_of_gradients(net: ip.Model, x: torch.Tensor) -> None:
    with net.trace(x):
        h = net.module("0").output
        slope = ip.grad(net.output.pow(2).sum(), h)
        curvature = ip.grad(slope.pow(2).sum(), h).save()
        held = ip.grad((slope.detach() * h).sum(), h).save()
        slope.save("slope")
    leaf = net.network[0](x).detach().requires_grad_()
    (first,) = torch.autograd.grad(net.network[1:](leaf).pow(2).sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), leaf)
    assert torch.allclose(curvature, second, atol=1e-6)
    assert torch.allclose(held, first, atol=1e-7)


def test_gradients_by_inputs_weights_and_computed_values(net: ip.Model, x: torch.Tensor) -> None:
    with net.trace(x) as t:
        direction = t.input("direction", torch.ones(8), trainable=True)
        net.module("0").output += direction
        scaled = net.module("2").output * 3
        net.module("2").output = scaled
        number = net.output.sum()
        by_input, by_value = ip.grad(number, direction).save(), ip.grad(number, scaled).save()
        by_weight = ip.grad(number, t.weight("4.weight")).save()
    leaf = torch.ones(8, requires_grad=True)
    middle = net.network[2](net.network[1](net.network[0](x) + leaf)) * 3
    y = net.network[3:](middle).sum()
    wanted = torch.autograd.grad(y, [leaf, middle, net.network[4].weight])
    for got, want in zip((by_input, by_value, by_weight), wanted, strict=True):
        assert torch.allclose(got, want, atol=1e-6)


def test_a_write_below_a_gradient_is_part_of_it(net: ip.Model, x: torch.Tensor) -> None:
    with net.trace(x):
        h = net.module("0").output
        net.module("2").output[:, :4] = 0
        gradient = ip.grad(net.output.sum(), h).save()
    leaf = net.network[0](x).detach().requires_grad_()
    middle = net.network[2](net.network[1](leaf)).clone()
    middle[:, :4] = 0
    (expected,) = torch.autograd.grad(net.network[3:](middle).sum(), leaf)
    assert torch.allclose(gradient, expected, atol=1e-7)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_there_whatever_mode_surrounds_the_block(net: ip.Model, x: torch.Tensor, mode: Any) -> None:
    with net.trace(x):
        expected = ip.grad(net.output.sum(), net.module("0").output).save()
    with mode(), net.trace(x):
        gradient = ip.grad(net.output.sum(), net.module("0").output).save()
    assert torch.equal(gradient, expected)


def test_a_frozen_network_has_gradients_too(net: ip.Model, x: torch.Tensor) -> None:
    net.network.requires_grad_(False)
    with net.trace(x):
        gradient = ip.grad(net.output.sum(), net.module("0").output).save()
    leaf = net.network[0](x).requires_grad_()
    assert torch.equal(gradient, torch.autograd.grad(net.network[1:](leaf).sum(), leaf)[0])


def test_what_cannot_be_differentiated_is_said_at_the_users_line(model: ip.Model, ids: torch.Tensor) -> None:
    with pytest.raises(RunError, match=rf"^{__file__}:\d+: a gradient was asked with respect to something"):  # noqa: SIM117
        with model.trace(ids):
            ip.grad(model.logits.sum(), model.module("model.embed_tokens").input).save()
    with pytest.raises(RunError, match=rf"^{__file__}:\d+: the number does not depend on the value"):  # noqa: SIM117
        with model.trace(ids):
            h = model.layers[0].output
            ip.grad(h.detach().sum(), h).save()
    with pytest.raises(RunError, match="does not depend"):  # noqa: SIM117
        with model.trace(ids):
            ip.grad(model.layers[0].output.sum(), model.layers[1].output).save()
    frozen = ip.wrap(torch.nn.Linear(2, 2).requires_grad_(False))
    with pytest.raises(RunError, match="this weight is frozen"), frozen.trace(torch.ones(1, 2)) as t:
        ip.grad(frozen.output.sum() + frozen.input.sum(), t.weight("weight")).save()


@pytest.mark.parametrize("mask", [None, torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])])
def test_gradients_of_gradients_pass_through_attention_whose_kernel_has_none(
    model: ip.Model, ids: torch.Tensor, mask: torch.Tensor | None
) -> None:
    network: Any = model.network
    given = {} if mask is None else {"attention_mask": mask}
    with model.trace(ids, **given):
        stream = model.layers[0].output
        slope = ip.grad(number(model.logits), stream).save()
        curvature = ip.grad(slope.pow(2).sum(), stream).save()
    eager = type(network)(copy.deepcopy(network.config)).eval()
    eager.load_state_dict(network.state_dict())
    eager.set_attn_implementation("eager")
    assert network.config._attn_implementation == "sdpa"
    seen: list[torch.Tensor] = []

    def give(module: Any, args: Any, output: Any) -> Any:
        seen.append(output.detach().requires_grad_())
        return seen[0]

    eager.model.layers[0].register_forward_hook(give)
    position = None if mask is None else (mask.cumsum(-1) - 1).clamp(min=0)
    logits = eager(ids, position_ids=position, use_cache=False, **given).logits
    (first,) = torch.autograd.grad(number(logits), seen[0], create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), seen[0])
    assert torch.allclose(slope, first, atol=1e-5 * float(first.detach().abs().max()))
    assert torch.allclose(curvature, second, atol=1e-5 * float(second.abs().max()))
    assert second.abs().max() > 0


def test_a_gradient_needs_no_world(model: ip.Model) -> None:
    x = torch.linspace(-1, 1, 5)
    with model.trace(run=False) as t:
        value = t.input("x", x)
        ip.grad((value**3).sum(), value).save("slope")
    found = next(iter(model.backend.run_many([t.graph], [t.feed])))["slope"]
    torch.testing.assert_close(found, 3 * x**2)


def test_a_value_that_is_differentiated_by_can_be_used_too(model: ip.Model, ids: torch.Tensor) -> None:
    """Of one that is not, only its place in the derivative is kept."""
    with model.trace(ids):
        first, second = model.layers[0].output, model.layers[1].output
        of = number(model.logits)
        slopes = [ip.grad(of, value).save() for value in (first, second)]
        product = (slopes[1] * second).sum().save()
    for layer, slope in enumerate(slopes):
        torch.testing.assert_close(slope, autograd(model.network, ids, f"model.layers.{layer}"))
    with model.trace(ids):
        plain = model.layers[1].output.save()
    torch.testing.assert_close(product, (slopes[1] * plain).sum())
