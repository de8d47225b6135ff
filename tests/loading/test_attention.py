"""The Attention adapter: one copy of a module calls our function; kernel, original and config stay as they are."""

from copy import copy
from typing import Any

import pytest
import torch

from interpose.errors import SiteError
from interpose.loading import attention, fresh

FAMILIES = ("gpt2", "gpt_neox", "llama", "gemma3_text", "olmo2", "phi3", "opt")
SIZES = {"layers": 2, "width": 32, "heads": 4, "neurons": 48, "vocab": 50, "pad_token_id": 0}


def small(family: str, **config: Any) -> Any:
    torch.manual_seed(0)
    return fresh.stock(family, **SIZES, **config)


def attention_paths(network: Any) -> list[str]:
    return [name for name, _ in network.named_modules() if name.endswith((".attn", ".attention", ".self_attn"))]


def swap(network: Any, path: str, module: torch.nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    network.get_submodule(parent)._modules[name] = module


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_function_that_calls_the_stock_kernel_changes_no_bit(family: str, implementation: str) -> None:
    network = small(family, attn_implementation=implementation)
    ids = torch.tensor([[0, 0, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    with torch.no_grad():
        before = network(ids, attention_mask=mask).logits
    seen: list[tuple[torch.Size, torch.Size]] = []

    def function(stock: Any, module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        seen.append((query.shape, key.shape))
        return stock(module, query, key, value, mask, **kwargs)

    adapter = attention.adapter(network)
    assert adapter is not None
    for path in attention_paths(network):
        twin = copy(network.get_submodule(path))
        adapter.install(twin, function)
        swap(network, path, twin)
    with torch.no_grad():
        after = network(ids, attention_mask=mask).logits
    assert torch.equal(before, after)
    assert len(seen) == 2
    assert seen[0][0][:3] == (2, 4, 6)  # batch, heads, positions


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_function_returns_is_used_and_the_original_is_not_touched(family: str) -> None:
    network = small(family)
    path = attention_paths(network)[0]
    original = network.get_submodule(path)
    held = dict(original.__dict__)
    config = dict(network.config.__dict__)
    twin = copy(original)

    def nothing(stock: Any, module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        mixed, pattern = stock(module, query, key, value, mask, **kwargs)
        return torch.zeros_like(mixed), pattern

    attention.TransformersAttention().install(twin, nothing)
    stream = torch.randn(1, 3, 32)
    projections = [name for name, _ in twin.named_modules() if name in ("c_proj", "dense", "o_proj", "out_proj")]
    bias = getattr(twin.get_submodule(projections[0]), "bias", None)

    swap(network, path, twin)
    got: list[torch.Tensor] = []
    handle = twin.register_forward_hook(lambda module, args, output: got.append(output[0]))
    with torch.no_grad():
        network(torch.tensor([[1, 2, 3]]))
    handle.remove()
    swap(network, path, original)
    expected = torch.zeros_like(stream) if bias is None else bias.detach().expand_as(stream)
    torch.testing.assert_close(got[0], expected)
    assert original.__dict__ == held
    assert network.config.__dict__ == config
    assert network.config._attn_implementation == "sdpa"


def test_a_copy_of_an_installed_copy_keeps_the_true_stock_kernel() -> None:
    network = small("llama")
    original = network.model.layers[0].self_attn
    stock = attention.stock_kernel(original)
    twin = copy(original)
    attention.TransformersAttention().install(twin, lambda stock, *args, **kwargs: None)
    again = copy(twin)
    attention.TransformersAttention().install(again, lambda stock, *args, **kwargs: None)
    assert attention.stock_kernel(again) is stock


def test_a_kernel_that_reads_its_name_from_the_config_finds_the_true_one() -> None:
    from transformers import AttentionInterface

    names: list[str] = []

    def like_flash(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        names.append(module.config._attn_implementation)
        return query.transpose(1, 2), None

    AttentionInterface.register("like_flash", like_flash)
    try:
        network = small("llama")
        twin = copy(network.model.layers[0].self_attn)
        twin.config = copy(twin.config)
        twin.config._attn_implementation_internal = "like_flash"
        kept = twin.config
        attention.TransformersAttention().install(
            twin, lambda stock, module, *args, **kwargs: stock(module, *args, **kwargs)
        )
        swap(network, "model.layers.0.self_attn", twin)
        network(torch.tensor([[1, 2, 3]]))
    finally:
        del AttentionInterface._global_mapping["like_flash"]
    assert names == ["like_flash"]
    assert twin.config._attn_implementation == "interpose"
    assert kept._attn_implementation == "like_flash"


def test_a_subclass_in_another_file_finds_the_kernel_it_inherits() -> None:
    module = small("llama", attn_implementation="eager").model.layers[0].self_attn
    expected = attention.stock_kernel(module)
    module.__class__ = type("Mine", (type(module),), {"__module__": __name__})
    assert attention.stock_kernel(module) is expected


def test_a_family_beside_the_registry_is_refused_with_what_works() -> None:
    network = fresh.stock("gptj", layers=1, width=32, heads=4, vocab=50, rotary_dim=4)
    with pytest.raises(SiteError, match=r"GPTJAttention does not take its attention function from .* Use attn\.q, "):
        attention.TransformersAttention().install(copy(network.transformer.h[0].attn), lambda *a: None)


def test_gpt2_in_a_mode_that_skips_its_function_is_refused() -> None:
    network = small("gpt2", attn_implementation="eager", reorder_and_upcast_attn=True)
    with pytest.raises(SiteError, match="reorder_and_upcast_attn=False"):
        attention.stock_kernel(network.transformer.h[0].attn)


def test_only_networks_of_transformers_have_an_adapter() -> None:
    plain = torch.nn.Sequential(torch.nn.Linear(2, 2))
    assert attention.adapter(plain) is None
    assert attention.adapter(torch.nn.ModuleDict({"inside": small("gpt2")})) is not None
