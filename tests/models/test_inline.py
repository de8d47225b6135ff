"""Families whose attention is written out in the module's own forward: what a block may do there, and leaves behind."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import RunError, SiteError

INLINE = ("gptj", "gpt_neo", "bloom", "falcon", "falcon-grouped", "falcon-rw")
PLAIN = {"layers": 2, "width": 24, "heads": 4, "vocab": 50}


@pytest.fixture(params=INLINE)
def inline(request: pytest.FixtureRequest, make: Any) -> ip.Model:
    return make(request.param)


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.tensor([[5, 17, 3, 42, 8, 30, 11, 26, 9], [12, 4, 33, 21, 6, 19, 47, 2, 14]])


def test_products_of_the_block_s_own_are_not_taken_for_the_module_s(inline: ip.Model, ids: torch.Tensor) -> None:
    with inline.trace(ids):
        wanted = inline.layers[1].attn.pattern.save()
    with inline.trace(ids):
        q = inline.layers[1].attn.q.transpose(1, 2)
        own = (q @ q.transpose(2, 3)).softmax(-1)  # made as soon as the queries are there
        mixed = (own @ q).save()
        q_sites = inline.layers[1].attn.q.save()
        found = inline.layers[1].attn.pattern.save()
    assert torch.equal(found, wanted)
    by_hand = q_sites.transpose(1, 2)
    torch.testing.assert_close(mixed, (by_hand @ by_hand.mT).softmax(-1) @ by_hand)


@pytest.mark.parametrize("variant", ["gpt_neo"])
def test_gpt_neo_s_sums_hold_and_its_windows_hide_what_is_beyond(model: Any, batch: Any, read: Any) -> None:
    at = read(model, batch)
    with torch.no_grad():
        given = ip.Batch.of_tokens(batch["input_ids"], batch.get("attention_mask", torch.ones_like(batch["input_ids"])))
        assert torch.equal(at["logits"], model.network(**given.kwargs).logits)
    beyond = torch.ones(9, 9, dtype=torch.bool).tril(-4)
    for layer in range(3):
        here = {name.removeprefix(f"layers.{layer}."): value for name, value in at.items()}
        torch.testing.assert_close(here["input"] + here["attn.output"], here["mid"])
        torch.testing.assert_close(here["mid"] + here["mlp.output"], here["output"])
        mixed = here["attn.pattern"] @ here["attn.value"]
        torch.testing.assert_close(mixed.transpose(1, 2), here["attn.z"])
        bias = model.network.transformer.h[layer].attn.attention.out_proj.bias
        torch.testing.assert_close(here["attn.result"].sum(2) + bias.detach(), here["attn.output"])
        products = (here["attn.query"] @ here["attn.key"].mT)[here["attn.scores"] > -1e30]
        torch.testing.assert_close(here["attn.scores"][here["attn.scores"] > -1e30], products)
        seen = float(here["attn.pattern"][1, :, beyond].abs().max())
        assert seen > 0 if layer == 1 else seen == 0


def test_the_derivative_by_a_pattern_is_that_by_z_against_the_values(inline: ip.Model, ids: torch.Tensor) -> None:
    attn, dims = inline.layers[1].attn, inline.sizes()
    with inline.trace(ids):
        number = inline.logits[:, -1, 5].sum()
        by_pattern, by_z = ip.grad(number, attn.pattern).save(), ip.grad(number, attn.z).save()
        by_value, pattern = ip.grad(number, attn.value).save(), attn.pattern.save()
        value = attn.value.save()
    every = value.repeat_interleave(dims.heads // dims.kv_heads, 1)
    torch.testing.assert_close(by_pattern, torch.einsum("bphd,bhqd->bhpq", by_z, every))
    each = torch.einsum("bhpq,bphd->bhqd", pattern, by_z).unflatten(1, (dims.kv_heads, -1))
    torch.testing.assert_close(by_value, each.sum(2))
    assert float(by_pattern.abs().max()) > 1e-4


@pytest.mark.parametrize("inline", ["bloom", "falcon-grouped"], indirect=True)
def test_threads_do_not_meet(inline: ip.Model, ids: torch.Tensor) -> None:
    prompts = [torch.roll(ids, shift, 1) for shift in range(4)]

    def pattern(prompt: torch.Tensor, factor: float) -> torch.Tensor:
        with inline.trace(prompt):
            inline.layers[0].attn.pattern *= factor
            found = [inline.layers[1].attn.pattern.save()]
        return found[0]

    alone = [pattern(prompt, number / 2) for number, prompt in enumerate(prompts)]
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(pattern, prompt, number / 2) for number, prompt in enumerate(prompts) for _ in range(5)]
        beside = [inline.network(prompt).logits for prompt in prompts]
    assert all(torch.equal(run.result(), alone[number // 5]) for number, run in enumerate(runs))
    assert all(torch.equal(found, inline.network(p).logits) for found, p in zip(beside, prompts, strict=True))


def test_nothing_is_left_on_the_network(inline: ip.Model, ids: torch.Tensor) -> None:
    network, dims = inline.network, inline.sizes()
    before = [dict(module.__dict__) for module in network.modules()]
    with inline.trace(ids):
        attn = inline.layers[1].attn
        attn.k = attn.k.repeat_interleave(dims.heads // dims.kv_heads, 2)
        attn.scores = attn.scores * 2
        inline.logits.save()
    after = [module.__dict__ for module in network.modules()]
    assert all(was.keys() == now.keys() for was, now in zip(before, after, strict=True))
    assert all(was[name] is now[name] for was, now in zip(before, after, strict=True) for name in was)


@pytest.mark.parametrize("variant", ["falcon", "falcon-grouped"])
def test_a_key_for_each_query_head_is_read_back_as_one(variant: str, make: Any, ids: torch.Tensor) -> None:
    model = make(variant)
    dims = model.sizes()
    scale = torch.arange(1.0, 1 + dims.heads).view(1, 1, -1, 1)
    with model.trace(ids):
        attn = model.layers[1].attn
        shared = attn.v.save()
        attn.v = attn.v.repeat_interleave(dims.heads // dims.kv_heads, 2) * scale
        value, written, q = attn.value.save(), attn.v.save(), attn.q.save()
        z, pattern = attn.z.save(), attn.pattern.save()
    with model.trace(ids):
        q_before = model.layers[1].attn.q.save()
    assert shared.shape[2] == dims.kv_heads
    assert torch.equal(written, shared.repeat_interleave(dims.heads // dims.kv_heads, 2) * scale)
    assert torch.equal(value, written.transpose(1, 2))
    assert torch.equal(q, q_before)
    torch.testing.assert_close(z, (pattern @ value).transpose(1, 2))


def test_in_half_precision_only_the_scores_keep_the_type_in_which_they_are_made(make: Any, ids: torch.Tensor) -> None:
    for variant, kind in (("gptj", torch.float32), ("bloom", torch.bfloat16)):
        attn = make(variant, torch.bfloat16).layers[1].attn
        with make(variant, torch.bfloat16).trace(ids):
            found = [getattr(attn, name).save() for name in ("query", "key", "value", "pattern", "scores")]
        assert [x.dtype for x in found] == [*[torch.bfloat16] * 4, kind]


def test_a_device_context_of_the_user_s_changes_nothing(inline: ip.Model, ids: torch.Tensor) -> None:
    with inline.trace(ids):
        wanted = inline.layers[1].attn.scores.save()
    with torch.device("cpu"), inline.trace(ids):
        found = inline.layers[1].attn.scores.save()
    assert torch.equal(found, wanted)


def test_attention_that_makes_no_pattern_is_an_error(ids: torch.Tensor) -> None:
    model = ip.build("gptj", **PLAIN, rotary_dim=2)
    model.network.transformer.h[0].attn._attn = lambda query, key, value, mask: (value, None)
    with pytest.raises(RunError, match=r"without reaching layers\[0\]\.attn\.pattern"), model.trace(ids):
        model.layers[0].attn.pattern.save()


def test_bloom_without_a_stream_has_no_table(ids: torch.Tensor) -> None:
    model = ip.build("bloom", **PLAIN, apply_residual_connection_post_layernorm=True)
    with pytest.raises(SiteError, match="of a kind without a table"), model.trace(ids):
        model.layers[0].output.save()
    with model.trace(ids):
        found = model.module("transformer.h.0").output[0].save()
    assert found.shape == (2, 9, 24)


FALCONS = {
    "7b": ({}, "input_layernorm", "input_layernorm", 1, True),
    "40b": ({"new_decoder_architecture": True, "kv_heads": 2}, "ln_attn", "ln_mlp", 2, True),
    "11b": (
        {"new_decoder_architecture": True, "kv_heads": 2, "num_ln_in_parallel_attn": 1},
        *["input_layernorm"] * 2,
        2,
        True,
    ),
    "rw": ({"multi_query": False, "parallel_attn": False}, "input_layernorm", "post_attention_layernorm", 4, False),
    "sequential": ({"parallel_attn": False}, "input_layernorm", "post_attention_layernorm", 1, False),
    "a key a head": ({"multi_query": False}, "input_layernorm", "input_layernorm", 4, True),
}


@pytest.mark.parametrize("name", FALCONS)
def test_every_falcon_reads_through_its_own_norms(name: str, ids: torch.Tensor) -> None:
    settings, attn_norm, mlp_norm, shared, parallel = FALCONS[name]
    torch.manual_seed(0)
    model = ip.build("falcon", **PLAIN, neurons=40, **settings)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight += 0.3 * torch.randn_like(weight)
    layer = model.layers[1]
    with model.trace(ids):
        stream, output = layer.input.save(), layer.output.save()
        reads, mlp_reads = layer.attn.input.save(), layer.mlp.input.save()
        adds, mlp_adds = layer.attn.output.save(), layer.mlp.output.save()
        keys, weights = layer.attn.k.save(), model.projection(1, "key").save()
    block = model.network.transformer.h[1]
    with torch.no_grad():
        assert torch.equal(reads, block.get_submodule(attn_norm)(stream))
        between = stream if parallel else stream + adds
        assert torch.equal(mlp_reads, block.get_submodule(mlp_norm)(between))
    torch.testing.assert_close(stream + adds + mlp_adds, output)
    torch.testing.assert_close(keys, torch.einsum("bpm,kdm->bpkd", reads, weights))
    assert keys.shape == (2, 9, shared, 6)
    assert model.sizes().parallel is parallel
    assert model.sizes().neurons == 40
