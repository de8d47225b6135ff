"""Every site that a raw hook can reach is what the hook sees and writes, bit for bit, by any index."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch

Batch = dict[str, torch.Tensor]
Index = Any
LAYER = 1


@dataclass(frozen=True)
class Raw:
    """Where a site lives, written down by hand: a module, a side of it, how the site is cut out and pasted in."""

    path: str
    side: str = "output"
    cut: Callable[[torch.Tensor], torch.Tensor] = lambda raw: raw
    paste: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = lambda raw, new: new


def heads(path: str, side: str, count: int) -> Raw:
    return Raw(path, side, lambda raw: raw.view(*raw.shape[:2], count, -1), lambda raw, new: new.reshape(raw.shape))


def span(path: str, start: int, stop: int, count: int) -> Raw:
    """Some columns of a projection."""

    def cut(raw: torch.Tensor) -> torch.Tensor:
        return raw[..., start:stop].reshape(*raw.shape[:2], count, -1)

    def paste(raw: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        raw = raw.clone()
        raw[..., start:stop] = new.reshape(*raw.shape[:2], -1)
        return raw

    return Raw(path, "output", cut, paste)


def third(path: str, part: int, count: int) -> Raw:
    """All queries, then all keys, then all values, of a model of width 24."""
    return span(path, 24 * part, 24 * (part + 1), count)


def woven(path: str, part: int, count: int) -> Raw:
    """Query, key and value of each head, head after head."""

    def cut(raw: torch.Tensor) -> torch.Tensor:
        return raw.view(*raw.shape[:2], count, 3, -1)[:, :, :, part]

    def paste(raw: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        raw = raw.clone()
        raw.view(*raw.shape[:2], count, 3, -1)[:, :, :, part] = new
        return raw

    return Raw(path, "output", cut, paste)


def grouped(path: str, part: int, count: int, shared: int) -> Raw:
    """The queries that share a key, that key, its value; then the next group."""
    each = count // shared

    def place(raw: torch.Tensor) -> torch.Tensor:
        rows = raw.view(*raw.shape[:2], shared, each + 2, -1)
        return rows[:, :, :, :each] if part == 0 else rows[:, :, :, each + part - 1]

    def cut(raw: torch.Tensor) -> torch.Tensor:
        return place(raw).flatten(2, 3) if part == 0 else place(raw)

    def paste(raw: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        raw = raw.clone()
        place(raw)[:] = new.view_as(place(raw))
        return raw

    return Raw(path, "output", cut, paste)


def separate(layer: str, kv_heads: int) -> dict[str, Raw]:
    attn = f"{layer}.self_attn"
    return {
        "embed": Raw("model.embed_tokens"),
        "norm.output": Raw("model.norm"),
        "layers.1.input": Raw(layer, "input"),
        "layers.1.output": Raw(layer),
        "layers.1.attn.input": Raw(attn, "input"),
        "layers.1.attn.q": heads(f"{attn}.q_proj", "output", 4),
        "layers.1.attn.k": heads(f"{attn}.k_proj", "output", kv_heads),
        "layers.1.attn.v": heads(f"{attn}.v_proj", "output", kv_heads),
        "layers.1.attn.z": heads(f"{attn}.o_proj", "input", 4),
        "layers.1.attn.output": Raw(attn),
        "layers.1.mlp.input": Raw(f"{layer}.mlp", "input"),
        "layers.1.mlp.neurons": Raw(f"{layer}.mlp.down_proj", "input"),
        "layers.1.mlp.output": Raw(f"{layer}.mlp"),
        "logits": Raw("lm_head"),
    }


def fused(layer: str, attn: str, names: dict[str, str], cut: Callable[..., Raw]) -> dict[str, Raw]:
    return {
        "embed": Raw(names["embed"]),
        "norm.output": Raw(names["norm"]),
        "layers.1.input": Raw(layer, "input"),
        "layers.1.output": Raw(layer),
        "layers.1.attn.input": Raw(attn, "input"),
        **{f"layers.1.attn.{kind}": cut(f"{attn}.{names['qkv']}", part, 4) for part, kind in enumerate("qkv")},
        "layers.1.attn.z": heads(f"{attn}.{names['out']}", "input", 4),
        "layers.1.attn.output": Raw(attn),
        "layers.1.mlp.input": Raw(f"{layer}.mlp", "input"),
        "layers.1.mlp.neurons": Raw(f"{layer}.mlp.{names['down']}", "input"),
        "layers.1.mlp.output": Raw(f"{layer}.mlp"),
        "logits": Raw("lm_head"),
    }


GPT2 = {"embed": "transformer.wte", "norm": "transformer.ln_f", "qkv": "c_attn", "out": "c_proj", "down": "c_proj"}
NEOX = {
    "embed": "gpt_neox.embed_in",
    "norm": "gpt_neox.final_layer_norm",
    "qkv": "query_key_value",
    "out": "dense",
    "down": "dense_4h_to_h",
}
POST = {
    "layers.1.attn.output": Raw("model.layers.1.post_attention_layernorm"),
    "layers.1.mlp.output": Raw("model.layers.1.post_feedforward_layernorm"),
}
GPTJ = {"embed": "transformer.wte", "norm": "transformer.ln_f", "qkv": "{}_proj", "out": "out_proj", "down": "fc_out"}
BLOOM = {**NEOX, "embed": "transformer.word_embeddings_layernorm", "norm": "transformer.ln_f"}
FALCON = {**BLOOM, "embed": "transformer.word_embeddings"}
_H1 = "transformer.h.1"


def apart(path: str, part: int, count: int) -> Raw:
    return heads(path.format("qkv"[part]), "output", count)


BY_HAND: dict[str, dict[str, Raw]] = {
    "gpt2": fused("transformer.h.1", "transformer.h.1.attn", GPT2, third),
    "neox": fused("gpt_neox.layers.1", "gpt_neox.layers.1.attention", NEOX, woven),
    "neox-sequential": fused("gpt_neox.layers.1", "gpt_neox.layers.1.attention", NEOX, woven),
    "llama": separate("model.layers.1", 2),
    "gemma3": {**separate("model.layers.1", 2), **POST},
    "olmo2": {**separate("model.layers.1", 2), **POST},
    "gptj": fused(_H1, f"{_H1}.attn", GPTJ, apart),
    "bloom": {
        **fused(_H1, f"{_H1}.self_attention", BLOOM, woven),
        "layers.1.attn.output": Raw(f"{_H1}.self_attention.dense"),  # the blocks add the stream themselves
        "layers.1.mlp.output": Raw(f"{_H1}.mlp.dense_4h_to_h"),
    },
    "falcon-grouped": fused(_H1, f"{_H1}.self_attention", FALCON, partial(grouped, shared=2)),
}
ATTN = "model.layers.1.self_attn"
BY_HAND |= {
    "qwen3": separate("model.layers.1", 2),
    "gemma2": {
        **separate("model.layers.1", 2),
        **POST,
        # What the network returns is behind the cap on the logits.
        "logits": Raw("", "output", lambda raw: raw["logits"], lambda raw, new: type(raw)(logits=new)),
    },
    "phi3": {
        **separate("model.layers.1", 2),
        "layers.1.attn.q": span(f"{ATTN}.qkv_proj", 0, 24, 4),
        "layers.1.attn.k": span(f"{ATTN}.qkv_proj", 24, 36, 2),
        "layers.1.attn.v": span(f"{ATTN}.qkv_proj", 36, 48, 2),
    },
}


def loose(names: dict[str, str], **paths: str) -> dict[str, Raw]:
    """Parts under paths of their own, by the site's name inside layer 1 or by that of the whole model."""
    sides = {"input": "input", "attn_input": "input", "attn_z": "input", "mlp_input": "input", "mlp_neurons": "input"}
    found = {name.replace("_", "."): Raw(path) for name, path in names.items()}
    for name, path in paths.items():
        site, side = f"layers.1.{name.replace('_', '.')}", sides.get(name, "output")
        cut = name in ("attn_q", "attn_k", "attn_v", "attn_z")
        found[site] = heads(path, side, 4) if cut else Raw(path, side)
    return found


def opt(layer: str, norm: str, embed: str) -> dict[str, Raw]:
    """The MLP is no module, and works on the positions of both prompts in one line."""
    attn = f"{layer}.self_attn"
    found = loose(
        {"embed": f"model.decoder.{embed}", "norm_output": norm, "logits": "lm_head"},
        input=layer,
        output=layer,
        **{f"attn_{kind}": f"{attn}.{kind}_proj" for kind in "qkv"},
        attn_input=attn,
        attn_z=f"{attn}.out_proj",
        attn_output=attn,
        mlp_input=f"{layer}.fc1",
        mlp_neurons=f"{layer}.fc2",
        mlp_output=f"{layer}.fc2",
    )
    for name in ("input", "neurons", "output"):
        raw = found[f"layers.1.mlp.{name}"]
        by_row = (lambda raw: raw.view(2, 9, -1)), (lambda raw, new: new.reshape(raw.shape))
        found[f"layers.1.mlp.{name}"] = Raw(raw.path, raw.side, *by_row)
    return {site: raw for site, raw in found.items() if raw.path}


OPT = "model.decoder.layers.1"
BERT = "bert.encoder.layer.1"
VIT = "vit.layers.1"
BY_HAND |= {
    "opt": opt(OPT, "model.decoder.final_layer_norm", "embed_tokens"),
    "opt-post": {**opt(OPT, "", "project_in"), "layers.1.mid": Raw(f"{OPT}.self_attn_layer_norm")},
    "bert": loose(
        {
            "embed": "bert.embeddings.LayerNorm",
            "norm_output": "cls.predictions.transform.LayerNorm",
            "logits": "cls.predictions.decoder",
        },
        input=BERT,
        mid=f"{BERT}.attention.output.LayerNorm",
        output=f"{BERT}.output.LayerNorm",
        attn_input=f"{BERT}.attention.self",
        attn_q=f"{BERT}.attention.self.query",
        attn_k=f"{BERT}.attention.self.key",
        attn_v=f"{BERT}.attention.self.value",
        attn_z=f"{BERT}.attention.output.dense",
        attn_output=f"{BERT}.attention.output.dense",
        mlp_input=f"{BERT}.intermediate",
        mlp_neurons=f"{BERT}.output.dense",
        mlp_output=f"{BERT}.output.dense",
    ),
    "vit": loose(
        {"embed": "vit.embeddings.dropout", "norm_output": "vit.layernorm", "logits": "classifier"},
        input=VIT,
        output=VIT,
        **{f"attn_{kind}": f"{VIT}.attention.{kind}_proj" for kind in "qkv"},
        attn_input=f"{VIT}.attention",
        attn_z=f"{VIT}.attention.o_proj",
        attn_output=f"{VIT}.attention",
        mlp_input=f"{VIT}.mlp",
        mlp_neurons=f"{VIT}.mlp.fc2",
        mlp_output=f"{VIT}.mlp",
    ),
}
CASES = [(variant, site) for variant, sites in BY_HAND.items() for site in sites]
INDICES: list[Index] = [
    (slice(None), -1),
    (slice(None), slice(2, 4)),
    [0],
    0,
    (..., 3),
    ([0, 1], [2, -1]),
    (slice(None), torch.tensor([1, 1, 0, 1, 0, 0, 0, 0, 1], dtype=torch.bool)),
    torch.tensor([[1, 0, 0, 1, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, 1, 1, 0, 1]], dtype=torch.bool),
    (slice(None), slice(None, None, 2), ..., slice(1, 3)),
]

# Every form at two sites; one form, another for each, at the others. An index does not depend on the family.
INDEXED = ("gpt2", "neox", "gemma3", "opt")
EVERYWHERE = ("layers.1.output", "layers.1.attn.k")
FORMS = [
    (*case, form)
    for number, case in enumerate(case for case in CASES if case[0] in INDEXED)
    for form in range(len(INDICES))
    if case[1] in EVERYWHERE or form == number % len(INDICES)
]


def hooked(network: torch.nn.Module, raw: Raw, change: Callable[[torch.Tensor], torch.Tensor] | None, ids: Any) -> Any:
    """The site's value and the logits, by a hook as one would write it by hand."""
    seen: list[torch.Tensor] = []

    def visit(value: torch.Tensor) -> torch.Tensor:
        seen.append(raw.cut(value).clone())
        return value if change is None else raw.paste(value, change(raw.cut(value)))

    def before(module: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (visit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": visit(kwargs["hidden_states"])}

    def after(module: Any, args: Any, output: Any) -> Any:
        return (visit(output[0]), *output[1:]) if isinstance(output, tuple) else visit(output)

    module = network.get_submodule(raw.path)
    if raw.side == "input":
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    try:
        with torch.no_grad():
            logits = network(ids, **({} if ids.is_floating_point() else {"use_cache": False})).logits
    finally:
        handle.remove()
    return seen[0], logits


@pytest.fixture
def ids(variant: str) -> torch.Tensor:
    """What the network is given."""
    if variant == "vit":
        return torch.randn(2, 2, 8, 8, generator=torch.manual_seed(3))
    return torch.tensor([[5, 17, 3, 42, 8, 30, 11, 26, 9], [12, 4, 33, 21, 6, 19, 47, 2, 14]])


@pytest.mark.parametrize(("variant", "site"), CASES)
def test_a_read_is_what_a_raw_hook_sees(variant: str, site: str, make: Any, ids: torch.Tensor) -> None:
    model = make(variant)
    expected, _ = hooked(model.network, BY_HAND[variant][site], None, ids)
    with model.trace(ids):
        found = model.site(site).save()
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("variant", "site"), CASES)
def test_a_write_is_what_a_raw_hook_writes(variant: str, site: str, make: Any, put: Any, ids: torch.Tensor) -> None:
    model = make(variant)
    value = torch.randn(
        hooked(model.network, BY_HAND[variant][site], None, ids)[0].shape, generator=torch.manual_seed(1)
    )
    _, expected = hooked(model.network, BY_HAND[variant][site], lambda old: value.clone(), ids)
    with model.trace(ids):
        put(model, site, value)
        logits = model.logits.save()
    assert torch.equal(logits, expected)


@pytest.mark.parametrize(("variant", "site", "form"), FORMS)
def test_an_index_is_read_and_written_as_in_torch(
    variant: str, site: str, form: int, make: Any, ids: torch.Tensor
) -> None:
    model, index = make(variant), INDICES[form]

    def change(old: torch.Tensor) -> torch.Tensor:
        new = old.clone()
        new[index] = 2 * new[index] + 1
        return new

    old, expected = hooked(model.network, BY_HAND[variant][site], change, ids)
    with model.trace(ids):
        part = model.site(site)[index]
        kept = part.save()
        model.site(site)[index] = 2 * part + 1
        logits = model.logits.save()
    assert torch.equal(kept, old[index])
    assert torch.equal(logits, expected)


SEQUENTIAL = [
    "gpt2",
    "neox-sequential",
    "llama",
    "gemma3",
    "olmo2",
    "phi3",
    "opt",
    "vit",
    "gpt_neo",
    "bloom",
    "falcon-rw",
]


@pytest.mark.parametrize("variant", SEQUENTIAL)
def test_mid_is_the_sum_that_the_next_norm_or_mlp_sees(variant: str, make: Any, ids: torch.Tensor) -> None:
    model = make(variant)
    reader = {"gpt2": "transformer.h.1.ln_2", "neox-sequential": "gpt_neox.layers.1.post_attention_layernorm"}
    reader |= {"gpt_neo": f"{_H1}.ln_2"} | dict.fromkeys(("bloom", "falcon-rw"), f"{_H1}.post_attention_layernorm")
    reader |= {"opt": "model.decoder.layers.1.final_layer_norm", "vit": "vit.layers.1.layernorm_after"}
    path = reader.get(variant, "model.layers.1.post_attention_layernorm")
    path = {"gemma3": "model.layers.1.pre_feedforward_layernorm", "olmo2": "model.layers.1.mlp"}.get(variant, path)
    expected, _ = hooked(model.network, Raw(path, "input"), None, ids)
    with model.trace(ids):
        mid = model.layers[LAYER].mid.save()
    assert torch.equal(mid, expected.view(mid.shape))  # OPT norms the positions of all prompts in one line
