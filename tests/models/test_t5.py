"""T5: two stacks, each with every standard site; cross attention between a decoder layer's attention and its MLP."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import SearchError, SiteError, TraceError
from interpose.graph.sites import LAYER_SITES, standard
from interpose.mediators import Edges

IDS = torch.tensor([[5, 17, 3, 42, 8, 30, 11], [12, 4, 33, 21, 6, 19, 47]])
TO = torch.tensor([[0, 9, 28, 31, 7], [0, 40, 2, 25, 13]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])
TO_MASK = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
EVEN = {"input_ids": IDS, "decoder_input_ids": TO}
PADDED = {**EVEN, "attention_mask": MASK, "decoder_attention_mask": TO_MASK}
LAYERS = {"encoder.": 2, "": 3}
SIZES = {"layers": 2, "num_decoder_layers": 3, "heads": 4, "width": 24, "head_width": 7, "neurons": 40, "vocab": 50}


def build(attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> ip.Model:
    torch.manual_seed(0)
    model = ip.build("t5", **SIZES, feed_forward_proj="gated-gelu", attn_implementation=attention)
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            weight += 0.3 * torch.randn_like(weight) if "layer_norm" in name else 0
    model.network.to(dtype)
    return model


@pytest.fixture(scope="module")
def model() -> ip.Model:
    return build()


@pytest.fixture(params=[EVEN, PADDED], ids=["even", "padded"])
def batch(request: pytest.FixtureRequest) -> dict[str, torch.Tensor]:
    return request.param


def names() -> list[str]:
    found = ["embed", "norm.output", "logits", "encoder.embed", "encoder.norm.output"]
    return found + [
        f"{stack}layers.{i}.{site}" for stack, n in LAYERS.items() for i in range(n) for site in LAYER_SITES
    ]


def cross(layer: int) -> str:
    return f"decoder.block.{layer}.layer.1.EncDecAttention"


def read(model: ip.Model, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    with model.trace(**batch) as t:
        for name in names():
            model.site(name).save(name)
        for layer in range(3):
            model.module(cross(layer)).output[0].save(f"cross {layer}")
    return t.saved


def off(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1))


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 2e-6), (torch.bfloat16, 3e-2)])
def test_the_sums_hold_in_both_stacks(dtype: torch.dtype, within: float, batch: dict[str, torch.Tensor]) -> None:
    at = read(build(dtype=dtype), batch)
    for stack, count in LAYERS.items():
        assert torch.equal(at[f"{stack}embed"], at[f"{stack}layers.0.input"])
        for layer in range(count):
            here = {site: at[f"{stack}layers.{layer}.{site}"] for site in LAYER_SITES}
            between = 0 if stack else at[f"cross {layer}"]
            assert off(here["input"] + here["attn.output"] + between, here["mid"]) < within
            assert off(here["mid"] + here["mlp.output"], here["output"]) < within
            if layer + 1 < count:
                assert torch.equal(here["output"], at[f"{stack}layers.{layer + 1}.input"])
            assert off((here["attn.pattern"] @ here["attn.value"]).transpose(1, 2), here["attn.z"]) < within
            assert off(here["attn.result"].sum(2), here["attn.output"]) < within
            rows = MASK.bool() if stack else TO_MASK.bool()
            rows = rows if "attention_mask" in batch else torch.ones_like(rows)
            made = here["attn.scores"].float().softmax(-1).transpose(1, 2)[rows]
            assert off(made, here["attn.pattern"].transpose(1, 2)[rows]) < within


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_reading_changes_no_bit_and_patterns_are_those_reported(attention: str, batch: dict[str, torch.Tensor]) -> None:
    model = build(attention)
    at = read(model, batch)
    with torch.no_grad():
        assert torch.equal(at["logits"], model.network(**batch).logits)
        reported = build("eager").network(**batch, output_attentions=True)
    for stack, patterns in (("encoder.", reported.encoder_attentions), ("", reported.decoder_attentions)):
        rows = (MASK if stack else TO_MASK).bool() if "attention_mask" in batch else torch.ones((), dtype=torch.bool)
        for layer, pattern in enumerate(patterns):
            found = at[f"{stack}layers.{layer}.attn.pattern"]
            rows = rows.expand(found.shape[0], found.shape[2])
            assert off(found.transpose(1, 2)[rows], pattern.transpose(1, 2)[rows]) < 1e-6


def test_shapes_are_promised_by_the_length_of_each_text(model: ip.Model) -> None:
    at = read(model, EVEN)
    with model.trace(**EVEN, run=False):
        for name in names():
            assert model.site(name).shape == at[name].shape, name
    assert at["encoder.layers.1.attn.z"].shape == (2, 7, 4, 7)
    assert at["layers.1.attn.z"].shape == (2, 5, 4, 7)


def heads(raw: torch.Tensor) -> torch.Tensor:
    return raw.view(*raw.shape[:2], 4, -1)


def same(raw: torch.Tensor) -> torch.Tensor:
    return raw


BY_HAND: dict[str, tuple[str, str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "embed": ("decoder.embed_tokens", "output", same),
    "encoder.embed": ("encoder.embed_tokens", "output", same),
    "norm.output": ("decoder.final_layer_norm", "output", same),
    "encoder.norm.output": ("encoder.final_layer_norm", "output", same),
    "logits": ("lm_head", "output", same),
    "layers.1.mid": ("decoder.block.1.layer.2", "input", same),
    "encoder.layers.1.mid": ("encoder.block.1.layer.1", "input", same),
}
for stack_, block_, mlp_ in (("", "decoder.block.1", 2), ("encoder.", "encoder.block.1", 1)):
    attn_, mlp_ = f"{block_}.layer.0.SelfAttention", f"{block_}.layer.{mlp_}.DenseReluDense"
    BY_HAND |= {f"{stack_}layers.1.attn.{kind}": (f"{attn_}.{kind}", "output", heads) for kind in "qkv"}
    BY_HAND |= {
        f"{stack_}layers.1.input": (block_, "input", same),
        f"{stack_}layers.1.output": (block_, "output", same),
        f"{stack_}layers.1.attn.input": (attn_, "input", same),
        f"{stack_}layers.1.attn.z": (f"{attn_}.o", "input", heads),
        f"{stack_}layers.1.attn.output": (attn_, "output", same),
        f"{stack_}layers.1.mlp.input": (mlp_, "input", same),
        f"{stack_}layers.1.mlp.neurons": (f"{mlp_}.wo", "input", same),
        f"{stack_}layers.1.mlp.output": (mlp_, "output", same),
    }


@pytest.mark.parametrize("name", BY_HAND)
def test_reads_and_writes_are_those_of_raw_hooks(name: str, model: ip.Model, put: Any) -> None:
    path, side, cut = BY_HAND[name]
    seen: list[torch.Tensor] = []

    def visit(raw: torch.Tensor) -> torch.Tensor:
        seen.append(cut(raw).clone())
        return (2 * raw + 1).detach()

    def before(_: Any, args: Any) -> Any:
        return (visit(args[0]), *args[1:])

    def after(_: Any, args: Any, output: Any) -> Any:
        return (visit(output[0]), *output[1:]) if isinstance(output, tuple) else visit(output)

    module = model.network.get_submodule(path)
    add = module.register_forward_pre_hook if side == "input" else module.register_forward_hook
    handle = add(before if side == "input" else after)
    with torch.no_grad():
        expected = model.network(**PADDED).logits
    handle.remove()
    with model.trace(**PADDED):
        site = model.site(name)
        found = site.save()
        put(model, name, 2 * site + 1)
        logits = model.logits.save()
    assert torch.equal(found, seen[0])
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("stack", ["", "encoder."])
def test_what_is_written_holds_for_what_is_behind_it(stack: str, model: ip.Model, batch: Any, put: Any) -> None:
    clean, random = read(model, batch), torch.manual_seed(7)
    at = f"{stack}layers.1."

    def run(site: str, new: torch.Tensor, *wanted: str) -> list[torch.Tensor]:
        with model.trace(**batch):
            put(model, at + site, new)
            found = {name: model.site(at + name).save() for name in wanted}
        return list(found.values())

    mid = torch.randn(clean[f"{at}mid"].shape, generator=random)
    output, adds, attention = run("mid", mid, "output", "mlp.output", "attn.output")
    assert off(output, mid + adds) < 2e-6
    assert torch.equal(attention, clean[f"{at}attn.output"])
    pattern = torch.randn(clean[f"{at}attn.pattern"].shape, generator=random).softmax(-1)
    (z,) = run("attn.pattern", pattern, "attn.z")
    assert off(z, (pattern @ clean[f"{at}attn.value"]).transpose(1, 2)) < 2e-6
    query = torch.randn(clean[f"{at}attn.query"].shape, generator=random)
    (scores,) = run("attn.query", query, "attn.scores")
    seen = scores > -1e30
    bias = clean[f"{at}attn.scores"] - clean[f"{at}attn.query"] @ clean[f"{at}attn.key"].mT
    assert off(scores[seen], (query @ clean[f"{at}attn.key"].mT + bias)[seen]) < 1e-5
    result = clean[f"{at}attn.result"].clone()
    result[:, :, 2] = 0
    (adds,) = run("attn.result", result, "attn.output")
    assert off(adds, clean[f"{at}attn.output"] - clean[f"{at}attn.result"][:, :, 2]) < 2e-6


def test_a_write_in_the_encoder_reaches_the_logits_through_cross_attention(model: ip.Model) -> None:
    with model.trace(**EVEN):
        model.encoder.norm.output[:, 3] = 0
        read_by = [model.module(cross(layer)).inputs[1]["key_value_states"].save() for layer in range(3)]
        logits = model.logits.save()
    with torch.no_grad():
        clean = model.network(**EVEN)
        states = clean.encoder_last_hidden_state.clone()
        states[:, 3] = 0
        wanted = model.network(encoder_outputs=(states,), decoder_input_ids=TO).logits
    assert torch.equal(logits, wanted)
    assert not torch.equal(logits, clean.logits)
    assert all(torch.equal(found, states) for found in read_by)


def test_values_are_patched_between_the_stacks_of_two_worlds(model: ip.Model) -> None:
    other = {**EVEN, "input_ids": IDS.flip(1)}
    with model.trace() as t:
        with t.world("other", **other):
            stream = model.encoder.layers[-1].output
        with t.world("main", **EVEN):
            model.encoder.layers[-1].output = stream
            logits = model.logits.save()
    with torch.no_grad():
        assert torch.equal(logits, model.network(**other).logits)


def test_positions_count_from_each_text_s_own_first_token(model: ip.Model) -> None:
    at = read(model, PADDED)
    with model.trace(**PADDED):
        decoded = model.layers[1].output[:, 0].save()
        encoded = model.encoder.layers[1].output[:, 0].save()
    assert torch.equal(decoded, at["layers.1.output"][[0, 1], [0, 1]])
    assert torch.equal(encoded, at["encoder.layers.1.output"][[0, 1], [2, 0]])


def test_the_encoder_s_sites_are_named_as_the_layers_are(model: ip.Model) -> None:
    assert len(model.layers) == 3
    assert len(model.encoder.layers) == 2
    site = standard("encoder.layers[1].attn.hook_z")
    assert (site.name, site.layer, site.local, site.in_encoder) == ("encoder.layers.1.attn.z", 1, "attn.z", True)
    assert str(site) == "encoder.layers[1].attn.z"
    with model.trace(**EVEN):
        model.encoder.embed = 0
        z = model.encoder.layers[0].attn.z.save()
    assert float(z.abs().max()) == 0


@pytest.mark.parametrize("kind", ["mt5", "umt5"])
def test_its_multilingual_relatives_have_the_same_sites(kind: str) -> None:
    torch.manual_seed(0)
    model = ip.build(kind, **SIZES)
    with model.trace(**EVEN):
        at = [
            getattr(layer.attn, name).save() for layer in (model.layers[2], model.encoder.layers[1]) for name in "qkvz"
        ]
        layer, added = model.layers[2], model.module(cross(2)).output[0].save()
        stream = [layer.input.save(), layer.attn.output.save(), layer.mid.save(), layer.mlp.output.save()]
        output, logits = layer.output.save(), model.logits.save()
    with torch.no_grad():
        assert torch.equal(logits, model.network(**EVEN).logits)
    assert [x.shape for x in at] == [*[(2, 5, 4, 7)] * 4, *[(2, 7, 4, 7)] * 4]
    assert off(stream[0] + stream[1] + added, stream[2]) < 2e-6
    assert off(stream[2] + stream[3], output) < 2e-6


def test_an_encoder_by_itself_works_by_path() -> None:
    from transformers import T5EncoderModel

    model = ip.wrap(T5EncoderModel(build().config).eval())
    with model.trace(input_ids=IDS):
        found = model.module("encoder.block.1").output[0].save()
    assert found.shape == (2, 7, 24)
    with pytest.raises(SiteError, match="of a kind without a table"):
        model.sizes()


def test_labels_may_stand_for_what_the_decoder_reads() -> None:
    model = build()
    model.network.config.decoder_start_token_id = 0
    with model.trace(input_ids=IDS, labels=TO):
        found = model.module("lm_head").output.save()
    with torch.no_grad():
        assert torch.equal(found, model.network(input_ids=IDS, labels=TO).logits)


def test_what_t5_has_not_is_said(model: ip.Model) -> None:
    with pytest.raises(TraceError, match="reads one text and writes another. Give both by name: input_ids=..., "):
        model.trace(IDS)
    with pytest.raises(TraceError, match="Give both by name"):
        model.trace("a prompt")
    with pytest.raises(TraceError, match="Give both by name"):
        model.trace(input_ids=IDS)
    with pytest.raises(IndexError, match=r"no encoder.layers\[2\]: this model has 2 layers"), model.trace(**EVEN):
        _ = model.encoder.layers[2].input
    with pytest.raises(SiteError, match=r"There is no encoder.layers\[2\].input"), model.trace(**EVEN):
        model.site("encoder.layers.2.input")
    with pytest.raises(SiteError, match="no site named 'encoder.logits'"):
        standard("encoder.logits")
    with pytest.raises(SearchError, match="fed by an encoder, through cross attention, whose edges are not counted"):
        Edges().units(model)
    llama = ip.build("llama", layers=1, heads=2, width=8, vocab=20)
    with pytest.raises(SiteError, match="has no encoder beside its layers"):
        _ = llama.encoder
    with pytest.raises(SiteError, match=r"There is no encoder.layers\[0\].input: "), llama.trace(TO):
        llama.site("encoder.layers.0.input")
