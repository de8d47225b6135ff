"""What the sites mean: the sums that must hold between them, in every family, padded or not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import interpose as ip

Batch = dict[str, torch.Tensor]
Read = Callable[[ip.Model, Batch], dict[str, torch.Tensor]]


def off(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, relative to the larger value; NaN never passes a comparison."""
    return float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return off(a, b) < 2e-6


def test_the_sums_hold_in_every_layer(model: ip.Model, batch: Batch, read: Read) -> None:
    check_sums(model, batch, read(model, batch), 2e-6)


# One of each form; the others differ from one of these in names.
FORMS = ["gpt2", "neox", "llama", "gemma3", "olmo2", "gemma2", "opt-post", "bert", "vit", "bloom", "falcon-grouped"]


@pytest.mark.parametrize("variant", FORMS)
@pytest.mark.parametrize("batch", ["padded"], indirect=True)
def test_the_sums_hold_in_bfloat16(variant: str, make: Any, batch: Batch, read: Read) -> None:
    model = make(variant, torch.bfloat16)
    check_sums(model, batch, read(model, batch), 3e-2)


def real_tokens(batch: Batch) -> torch.Tensor:
    """Which positions hold a token; all of an image's do."""
    if "pixel_values" in batch:
        rows, _, height, width = batch["pixel_values"].shape
        return torch.ones(rows, 1 + height // 4 * (width // 4), dtype=torch.bool)
    return batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()


def normed(model: ip.Model, norm: str | None, layer: int, stream: torch.Tensor) -> torch.Tensor:
    """The stream behind the norm that a post-norm network has there."""
    path = norm and model.table().path(norm, layer)
    with torch.no_grad():
        return stream if path is None else model.network.get_submodule(path)(stream)


def check_sums(model: ip.Model, batch: Batch, at: dict[str, torch.Tensor], within: float) -> None:
    dims, real = model.sizes(), real_tokens(batch)
    assert torch.equal(at["embed"], at["layers.0.input"]) == (model.config.model_type not in ("gpt2", "opt", "gpt_neo"))
    for layer in range(dims.layers):
        here = {name.removeprefix(f"layers.{layer}."): value for name, value in at.items()}
        if dims.parallel:
            assert off(here["input"] + here["attn.output"] + here["mlp.output"], here["output"]) < within
        else:
            mid = normed(model, model.table().mid_norm and "mid_norm", layer, here["input"] + here["attn.output"])
            output = normed(model, model.table().output_norm and "output_norm", layer, here["mid"] + here["mlp.output"])
            assert off(mid, here["mid"]) < within
            assert off(output, here["output"]) < within
        if layer + 1 < dims.layers:
            assert torch.equal(here["output"], at[f"layers.{layer + 1}.input"])
        groups = dims.heads // dims.kv_heads
        mixed = here["attn.pattern"] @ here["attn.value"].repeat_interleave(groups, 1)
        assert off(mixed.transpose(1, 2), here["attn.z"]) < within
        shares = here["attn.scores"].float().softmax(-1), here["attn.pattern"]
        assert off(*(rows.transpose(1, 2)[real] for rows in shares)) < within
        if model.table().attn_post is None:
            bias = getattr(model.network.get_submodule(model.table().path("out", layer)), "bias", None)
            total = here["attn.result"].sum(2) + (0 if bias is None else bias.detach())
        else:
            total = here["attn.result"].sum(2)
        assert off(total, here["attn.output"]) < within


def test_shapes_are_those_of_the_table(model: ip.Model, batch: Batch, read: Read, sites: Any) -> None:
    found = read(model, batch)
    with model.trace(**batch, run=False):
        for name in sites(model):
            promised = model.site(name)
            assert promised.shape == found[name].shape, name
            assert promised.dtype == found[name].dtype, name


def test_reading_every_site_changes_no_bit(model: ip.Model, batch: Batch, read: Read) -> None:
    with torch.no_grad():
        before = stock(model, batch)
    at = read(model, batch)
    assert torch.equal(at["logits"], before)
    with torch.no_grad():
        assert torch.equal(stock(model, batch), before)


@pytest.mark.parametrize("variant", FORMS)
@pytest.mark.parametrize("batch", ["padded"], indirect=True)
def test_reading_every_site_changes_no_bit_with_eager_kernels(
    variant: str, make: Any, batch: Batch, read: Read
) -> None:
    model = make(variant, attention="eager")
    with torch.no_grad():
        assert torch.equal(read(model, batch)["logits"], stock(model, batch))


def stock(model: ip.Model, batch: Batch) -> torch.Tensor:
    return model.network(**given_to(batch)).logits


def given_to(batch: Batch) -> dict[str, Any]:
    if "pixel_values" in batch:
        return batch
    return dict(ip.Batch.of_tokens(batch["input_ids"], real_tokens(batch)).kwargs)


def test_the_pattern_is_what_transformers_itself_reports(variant: str, make: Any, batch: Batch, read: Read) -> None:
    eager = make(variant, attention="eager")
    fresh = type(eager.network)(eager.network.config).eval()  # asking for attentions leaves hooks on a network
    fresh.load_state_dict(eager.network.state_dict())
    fresh.set_attn_implementation("eager")
    with torch.no_grad():
        reported = fresh(**given_to(batch), output_attentions=True).attentions
    found = read(eager, batch)
    beside_sdpa = read(make(variant), batch)
    real = real_tokens(batch)
    for layer, pattern in enumerate(reported):
        name = f"layers.{layer}.attn.pattern"
        assert torch.equal(found[name], pattern)
        if variant == "falcon-rw":
            continue  # its eager kernel adds the distances twice, so that stock eager and stock sdpa differ by 0.04
        rows = beside_sdpa[name].transpose(1, 2)[real], pattern.transpose(1, 2)[real]
        assert off(*rows) < 1e-6


def test_nothing_attends_to_padding_or_to_the_future_or_beyond_the_window(
    model: ip.Model, batch: Batch, read: Read
) -> None:
    at = read(model, batch)
    real = real_tokens(batch)
    length = real.shape[1]
    windowed = {"gpt_neo": (0, 2), "gemma3_text": (0, 2), "gemma2": (0, 2), "qwen2": (0, 2), "mistral": (0, 1, 2)}
    both_ways = model.config.model_type in ("bert", "vit")
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    for layer in range(model.sizes().layers):
        pattern = at[f"layers.{layer}.attn.pattern"].transpose(1, 2)[real]  # [real query, head, key]
        assert torch.allclose(pattern.sum(-1), torch.ones(()))
        rows = torch.arange(length).repeat(len(real), 1)[real]
        prompts = torch.arange(len(real))[:, None].expand_as(real)[real]
        ahead = pattern.transpose(0, 1)[:, future[rows] & real[prompts]].abs()
        assert float(ahead.min()) > 0 if both_ways else float(ahead.max()) == 0
        assert float(pattern.transpose(0, 1)[:, ~real[prompts]].abs().sum()) == 0
        if layer in windowed.get(model.config.model_type, ()):
            beyond = (rows[:, None] - torch.arange(length)) >= 4
            assert bool(beyond.any())
            assert float(pattern.transpose(0, 1)[:, beyond].abs().max()) == 0


SHARED = ["gpt2", "llama", "gemma3", "olmo2", "qwen3", "gemma2", "phi3", "falcon", "falcon-grouped"]


@pytest.mark.parametrize("variant", SHARED)
@pytest.mark.parametrize("name", ["attn.k", "attn.v", "attn.key", "attn.value"])
def test_keys_and_values_can_be_given_one_a_query_head(model: ip.Model, batch: Batch, put: Any, name: str) -> None:
    dims = model.sizes()
    groups, axis = dims.heads // dims.kv_heads, 2 if name in ("attn.k", "attn.v") else 1
    if why := model.table().fixed(name, dims):
        behind = {"attn.k": "attn.key", "attn.v": "attn.value"}[name]
        with pytest.raises(ip.errors.ShapeError, match=f"This family {why}.*write {behind}"), model.trace(**batch):
            put(model, f"layers.1.{name}", model.site(f"layers.1.{name}").repeat_interleave(groups, axis))
        return
    with torch.no_grad():
        before = stock(model, batch)
    with model.trace(**batch):
        put(model, f"layers.1.{name}", model.site(f"layers.1.{name}").repeat_interleave(groups, axis))
        logits = model.logits.save()
    # Where all heads share one key, torch takes another kernel for as many keys as queries.
    same = close if dims.kv_heads == 1 and name in ("attn.k", "attn.v") else torch.equal
    assert same(logits, before)
    with model.trace(**batch):  # one query head loses its own; its neighbour in the group keeps it
        own = model.site(f"layers.1.{name}").repeat_interleave(groups, axis)
        one = (
            torch.ones(dims.heads)
            .scatter(0, torch.tensor(0), 0)
            .view([dims.heads if a == axis else 1 for a in range(4)])
        )
        put(model, f"layers.1.{name}", own * one)
        z = model.layers[1].attn.z.save()
    with model.trace(**batch):
        z_before = model.layers[1].attn.z.save()
    assert same(z[:, :, 1:], z_before[:, :, 1:])
    assert not torch.allclose(z[:, :, 0], z_before[:, :, 0])
