"""Operators, tensor libraries, type checkers and modules take a value of a block for a tensor."""

from collections.abc import Callable
from typing import Any

import einops
import numpy
import pytest
import torch
from beartype import beartype
from beartype.door import is_bearable
from jaxtyping import Float, Int, jaxtyped
from torch import Tensor
from torch.nn import functional

import interpose as ip
from interpose.errors import InterposeError, ShapeError, TraceError
from interpose.trace.functions import IN_PLACE

X = torch.randn(3, 8, generator=torch.manual_seed(1))
Y = torch.randn(3, 8, generator=torch.manual_seed(2))


OPERATORS: list[Callable[[Any, Any], Any]] = [
    lambda a, b: a + b - 2 * a / b,
    lambda a, b: 3 - a,
    lambda a, b: 2 / b,
    lambda a, b: 2**a,
    lambda a, b: a**2,
    lambda a, b: a // b,
    lambda a, b: 7 // b,
    lambda a, b: a % 2,
    lambda a, b: 5 % b,
    lambda a, b: -abs(a),
    lambda a, b: a @ b.T,
    lambda a, b: torch.ones(4, 3) @ a,
    lambda a, b: (a > 0) & (b < 1) | ~(a == b) ^ (b != a),
    lambda a, b: (a >= 0.5) & (b <= 1),
    lambda a, b: torch.ones(3, 8) * a,
    lambda a, b: a.where(b > 0, 0.0),
    lambda a, b: a.mT + a.T,
    lambda a, b: a * numpy.float32(2),
    lambda a, b: a[:, numpy.array([1, 2])],
    lambda a, b: a[numpy.int64(1)],
    lambda a, b: torch.stack([row * i for i, row in enumerate(a)]),
    lambda a, b: a.sum(dim=-1, keepdim=True) / len(b),
    lambda a, b: a.view(a.shape[0], 2, -1).mean((0, 2)),
    lambda a, b: a.permute(1, 0).reshape(2, -1),
    lambda a, b: functional.layer_norm(a, a.shape[-1:]) * a.size(0) * a.dim() * a.numel(),
    lambda a, b: functional.softmax(a, dim=-1).unflatten(-1, (2, 4)).flip(0),
    lambda a, b: torch.arange(16.0).reshape(8, 2)[a.argmax(-1)],
    lambda a, b: a.to(torch.float64).to(b),
    lambda a, b: (a.topk(2).values, a.max(1).indices),
    lambda a, b: a.type_as(b.double()),
    lambda a, b: einops.rearrange(a, "r (h d) -> h r d", h=2),
    lambda a, b: einops.reduce(a, "r (h d) -> h r", "mean", h=2),
    lambda a, b: einops.repeat(a, "r c -> r n c", n=3),
    lambda a, b: einops.einsum(a, b, "i k, j k -> i j"),
    lambda a, b: einops.pack([a, b], "* c")[0],
]


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [found for item in value for found in tensors(item)] if isinstance(value, tuple | list) else []


def through_block(call: Callable[..., Any]) -> Any:
    """What a call gives for X and Y as values of a block, and the shapes and types that it promised."""
    model = ip.wrap(torch.nn.Identity())
    with model.trace(X) as t:
        result = call(t.input("x", X), t.input("y", Y))
        promised = [(value.shape, value.dtype) for value in tensors(result)]
        for value in tensors(result):
            value.save()
    return result, promised


@pytest.mark.parametrize("number", range(len(OPERATORS)))
def test_operators_and_tensor_libraries_are_what_torch_gives(number: int) -> None:
    call = OPERATORS[number]
    result, promised = through_block(call)
    expected = call(X, Y)
    assert all(torch.equal(a, b) for a, b in zip(tensors(result), tensors(expected), strict=True))
    assert promised == [(value.shape, value.dtype) for value in tensors(expected)]


def test_arrays_of_numpy_stand_on_either_side() -> None:
    array = numpy.linspace(0, 1, 8, dtype=numpy.float32)
    tensor = torch.as_tensor(array)
    found, _ = through_block(
        lambda a, b: (array * a, a * array, array - a, a - array, array / b, array @ a.T, a**array)
    )
    wanted = (tensor * X, X * tensor, tensor - X, X - tensor, tensor / Y, tensor @ X.T, X**tensor)
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(found, wanted, strict=True))


def test_type_checkers_take_a_value_of_a_block_for_a_tensor(net: ip.Model, x: torch.Tensor) -> None:
    @jaxtyped(typechecker=beartype)
    def halve(h: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        return h / 2

    with net.trace(x):
        h = net.module("0").output
        assert isinstance(h, Tensor)
        assert torch.is_tensor(h)
        assert is_bearable(h, Tensor)
        assert isinstance(h, Float[Tensor, "batch 8"])
        assert not isinstance(h, Float[Tensor, "batch 9"])
        assert not isinstance(h, Int[Tensor, "batch 8"])
        half = halve(h).save()
    assert torch.equal(half, net.network[0](x) / 2)


def test_shapes_types_and_devices_are_known_inside_a_block(model: ip.Model, ids: Tensor) -> None:
    with model.trace(ids):
        h = model.layers[0].attn.z
        assert h.shape == (2, 7, 4, 6)
        assert h.size(-1) == 6
        assert (h.ndim, h.dim(), len(h), h.numel()) == (4, 4, 2, 336)
        assert h.dtype == torch.float32
        assert h.device == model.device
        assert h.is_floating_point()
        assert not h.is_cuda
        assert not h.requires_grad
        rows, columns = model.logits[:, -1].shape
        assert (rows, columns) == (2, 50)
        first, second = model.logits[:, -1]
        assert first.shape == second.shape == (50,)
        assert "shape (2, 7, 4, 6), made at" in repr(h)
        assert len({h, h}) == 1


def test_the_models_own_parts_are_functions(model: ip.Model, ids: Tensor) -> None:
    with model.trace(ids):
        lens = model.call.unembed(model.call.norm(model.layers[1].output)).save()
        again = model.call.module("model.layers.1.mlp", model.layers[1].mlp.input).save()
        adds = model.layers[1].mlp.output.save()
        stream = model.layers[1].output.save()
        of_plain = model.call.norm(torch.ones(2, 24)).save()
    network = model.network
    assert torch.equal(lens, network.lm_head(network.model.norm(stream)))
    assert torch.equal(again, adds)
    assert torch.equal(of_plain, network.model.norm(torch.ones(2, 24)))
    with pytest.raises(ShapeError, match="calling model.norm does not fit"), model.trace(ids):
        model.call.norm(torch.ones(2, 7))
    with pytest.raises(TraceError, match="takes tensors, not int"), model.trace(ids):
        model.call.norm(3)


def test_modules_applied_to_a_value_record_their_weights(model: ip.Model, ids: Tensor) -> None:
    probe = torch.nn.Sequential(torch.nn.Linear(24, 5), torch.nn.LayerNorm(5), torch.nn.ReLU())
    with model.trace(ids) as t:
        h = model.layers[1].output
        scores = probe(h).save()
        own = model.network.lm_head(h).save()
        stream = h.save()
    assert torch.equal(scores, probe(stream))
    assert torch.equal(own, model.network.lm_head(stream))
    assert 'weight("lm_head.weight")' in str(t.graph)
    assert len(t.feed.tensors) == 4  # the probe's weights travel with the graph, the model's own do not


def test_a_long_chain_of_operations_is_run(net: ip.Model, x: Tensor) -> None:
    with net.trace(x):
        h = net.module("0").output
        for _ in range(600):
            h = h + 1
        total = h.save()
    assert torch.allclose(total, net.network[0](x) + 600)


def test_in_place_functions_of_every_kind_are_known() -> None:
    assert {"add", "mul", "setitem", "clamp", "masked_fill", "index_add", "relu"} <= set(IN_PLACE.values())


def test_an_unknown_shape_is_found_where_it_is_needed(net: ip.Model, x: Tensor) -> None:
    with net.trace(x):
        h = net.module("0").output
        assert "not known yet" in repr(h)
        left, right = h.chunk(2, -1)
        assert left.shape == (3, 4)
        assert (h @ torch.ones(8, 2)).shape == (3, 2)
        product = (left * right).save()
    expected = net.network[0](x)
    assert torch.equal(product, expected[:, :4] * expected[:, 4:])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model, t: model("text"), r"a Model is not called\. Write with model\.trace\(prompt\)"),
        (
            lambda model, t: model.run_with_cache("text"),
            r"no 'run_with_cache'\. Write with model\.trace\(prompt\): streams",
        ),
        (lambda model, t: model.to_tokens("text"), r"Write model\.tokens\(prompt\)\.ids\."),
        (
            lambda model, t: model.add_hook("name"),
            r"Write with model\.trace\(prompt, run=False\) as t: .*model\.edited\(t\)",
        ),
        (
            lambda model, t: t.invoke("text"),
            r"a block has no 'invoke'\. Write with model\.trace\(\) as t: .* t\.world\(",
        ),
        (lambda model, t: t.iter[:3], r"a block has no 'iter'\. Write with t\.steps\(\)"),
        (lambda model, t: t.result, r"Write t\.tokens or t\.text after a generation"),
        (lambda model, t: t.nonsense, r"'Trace' object has no attribute 'nonsense'"),
        (
            lambda model, t: model.lm_head,
            r"to apply it to a value of a block model\.call\.module\(\"lm_head\", value\)",
        ),
    ],
)
def test_what_other_libraries_have_is_answered_with_what_to_write(model: ip.Model, call: Any, said: str) -> None:
    with model.trace(torch.tensor([[1, 2]])) as t, pytest.raises((InterposeError, AttributeError), match=said):
        call(model, t)
