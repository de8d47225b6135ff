"""A network whose projections are quantised, or carry an adapter, has every site; none is made of the wrong weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import interpose as ip
from interpose.errors import RunError, SiteError
from interpose.graph.sites import LAYER_SITES, MODEL_SITES
from interpose.trace.weights import hash_of_tensors


class Int8Linear(nn.Module):
    """Rows of 8-bit integers, each with a scale; no floating-point weight."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        weight = linear.weight.T if hasattr(linear, "nf") else linear.weight  # GPT-2 stores it input-first
        scale = weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def dequantised(self) -> Tensor:
        return self.weight * self.scale  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.dequantised(), self.bias)


class Adapted(nn.Linear):
    """A weight that says only a part of what the module does, as under a LoRA."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (x @ self.down) @ self.up  # type: ignore[operator]


def replaced(network: nn.Module, make: Any) -> None:
    for path, module in list(network.named_modules()):
        if (isinstance(module, nn.Linear) or hasattr(module, "nf")) and "head" not in path and "embed_out" not in path:
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, make(module))


def pair(family: str) -> tuple[ip.Model, ip.Model]:
    """A quantised network, and a stock one with the same numbers as floats."""
    built = []
    for _ in range(2):
        torch.manual_seed(3)
        model = ip.build(family, layers=2, width=24, heads=4, neurons=32, vocab=50)
        for name, weight in model.network.named_parameters():
            weight.data = weight.data * 4 if "bias" not in name else torch.randn_like(weight) * 0.2
        built.append(model.network)
    quantised, plain = built
    replaced(quantised, Int8Linear)
    for path, module in quantised.named_modules():
        if isinstance(module, Int8Linear):
            stock: Any = plain.get_submodule(path)
            stock.weight.data = module.dequantised().T.contiguous() if hasattr(stock, "nf") else module.dequantised()
    return ip.wrap(quantised), ip.wrap(plain)


IDS = torch.tensor([[5, 17, 3, 42, 8], [12, 4, 33, 21, 6]])
NAMES = [*MODEL_SITES, *(f"layers.1.{name}" for name in LAYER_SITES)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma3_text"])
def test_every_site_of_a_quantised_network_is_that_of_its_numbers_as_floats(family: str) -> None:
    found = []
    for model in pair(family):
        names = [name for name in NAMES if not (model.sizes().parallel and name.endswith(".mid"))]
        with model.trace(IDS) as t:
            for name in names:
                model.site(name).save(name)
            for kind in ("query", "key", "value"):
                model.projection(1, kind).save(kind)
            h = model.layers[0].output
            ip.grad(model.logits[:, -1].logsumexp(-1).sum(), h).save("gradient")
        with model.trace(IDS) as patched:
            model.layers[0].attn.result[:, -1, 2] *= 3
            model.logits.save("patched")
        found.append(t.saved | patched.saved)
    quantised, plain = found
    assert quantised.keys() == plain.keys()
    for name, value in plain.items():
        assert torch.allclose(quantised[name], value, atol=1e-4), name
        assert quantised[name].shape == value.shape


def test_edges_of_a_quantised_network_have_the_scores_of_its_numbers_as_floats() -> None:
    mask = torch.ones_like(IDS, dtype=torch.bool)
    pairs = ip.Pairs(("a", "b"), ("c", "d"), IDS, IDS.flip(1), mask, torch.tensor([3, 4]), torch.tensor([5, 6]))
    quantised, plain = (ip.methods.EAP().score(model, pairs, ip.mediators.Edges()) for model in pair("llama"))
    assert torch.allclose(quantised.values, plain.values, atol=1e-4)
    assert plain.values.abs().max() > 0.01


def test_a_module_that_does_more_than_its_weight_says_is_asked_itself() -> None:
    torch.manual_seed(3)
    model = ip.build("llama", layers=2, width=24, heads=4, neurons=32, vocab=50)

    def adapted(linear: nn.Linear) -> Adapted:
        made = Adapted(linear.in_features, linear.out_features, bias=False)
        made.weight = linear.weight
        made.down, made.up = torch.randn(linear.in_features, 2), torch.randn(2, linear.out_features)
        return made

    replaced(model.network, adapted)
    with model.trace(IDS):
        result, output = model.layers[1].attn.result.sum(2).save(), model.layers[1].attn.output.save()
        given, weights, q = (
            model.layers[1].attn.input.save(),
            model.projection(1, "query").save(),
            model.layers[1].attn.q.save(),
        )
    assert torch.allclose(result, output, atol=1e-4)
    assert torch.allclose(torch.einsum("bpm,hdm->bphd", given, weights), q, atol=1e-4)


def test_a_projection_that_is_no_linear_map_is_named() -> None:
    model = ip.build("llama", layers=1, width=24, heads=4, neurons=32, vocab=50)

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(0, keepdim=True).expand(x.shape) if x.ndim == 3 else x.sum()

    model.network.get_submodule("model.layers.0.self_attn").o_proj = Odd()
    refused = pytest.raises(RunError, match="'model.layers.0.self_attn.o_proj' .Odd. does not turn vectors into vect")
    with refused, model.trace(IDS):
        model.layers[0].attn.result.save()


class Packed(Tensor):
    """A weight in another form, as torchao keeps one: any operation on it fails."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.empty_like:
            raise NotImplementedError
        return super().__torch_function__(func, types, args, kwargs or {})

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["numbers", "scale"], None


def packed(number: int) -> Packed:
    made = torch.zeros(24, 24).as_subclass(Packed)
    made.numbers, made.scale = torch.full((24, 24), number, dtype=torch.int8), torch.ones(24)  # type: ignore[attr-defined]
    return made


def test_a_weight_in_another_form_is_refused_by_path_and_told_apart_by_its_parts() -> None:
    model = ip.build("llama", layers=1, width=24, heads=4, neurons=32, vocab=50)
    model.network.get_submodule("model.norm").register_buffer("held", packed(1))
    refused = pytest.raises(SiteError, match=r"'model.norm.held' is kept in another form \(Packed\).*Apply its module")
    with refused, model.trace(IDS) as t:
        t.weight("model.norm.held").save()
    values: list[Any] = [packed(1), packed(2), (packed(1), None), "float32"]
    assert len({hash_of_tensors({"w": value}) for value in values}) == 4
    assert hash_of_tensors({"w": packed(1)}) == hash_of_tensors({"w": packed(1)})
