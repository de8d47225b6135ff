"""What a write means, by definition: what must then be true of the sites that rest on the one written."""

from typing import Any

import pytest
import torch

import interpose as ip

Batch = dict[str, torch.Tensor]
LEFT_OUT = ("mistral", "qwen2", "qwen3", "falcon")  # their tables say nothing that Llama's or Falcon's other do not


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return float((a - b).abs().max()) <= 2e-6 * max(1.0, float(b.abs().max()))


def noise(like: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(like.shape, generator=torch.manual_seed(7))


def behind(model: ip.Model, norm: str, stream: torch.Tensor) -> torch.Tensor:
    """The stream of layer 1 behind the norm that a post-norm network has there."""
    if getattr(model.table(), norm) is None:
        return stream
    with torch.no_grad():
        return model.network.get_submodule(model.table().path(norm, 1))(stream)


def through(model: ip.Model, stream: torch.Tensor, attn: torch.Tensor, mlp: torch.Tensor) -> torch.Tensor:
    """The output of layer 1: its input and what its blocks add to it."""
    return behind(model, "output_norm", behind(model, "mid_norm", stream + attn) + mlp)


@pytest.fixture
def clean(model: ip.Model, batch: Batch, read: Any) -> dict[str, torch.Tensor]:
    return read(model, batch)


def test_after_mid_is_set_the_output_is_it_and_what_the_mlp_adds(model: ip.Model, batch: Batch, clean: Any) -> None:
    if model.sizes().parallel:
        with model.trace(**batch), pytest.raises(ip.errors.SiteError, match="run in parallel"):
            _ = model.layers[1].mid
        return
    new = noise(clean["layers.1.mid"], 3.0)
    with model.trace(**batch):
        model.layers[1].mid = new
        mid, mlp = model.layers[1].mid.save(), model.layers[1].mlp.output.save()
        output = model.layers[1].output.save()
        adds = model.layers[1].attn.output.save()
        if model.table().mlp:
            given = model.layers[1].mlp.input
            beside = [torch.zeros_like(given)] if model.table().inner_sum else []  # BLOOM's adds what it is given
            alone = model.call.module(model.table().path("mlp", 1), given, *beside).save()
    assert torch.equal(mid, new)
    assert close(output, behind(model, "output_norm", new + mlp))
    assert not close(mlp, clean["layers.1.mlp.output"])
    assert torch.equal(adds, clean["layers.1.attn.output"])
    if model.table().mlp_post is None and model.table().mlp:
        assert torch.equal(alone, mlp)


def test_after_the_pattern_is_set_z_is_its_mix_of_the_values(model: ip.Model, batch: Batch, clean: Any) -> None:
    new = noise(clean["layers.1.attn.pattern"]).softmax(-1)  # looks ahead, and at padding: a write is obeyed
    with model.trace(**batch):
        model.layers[1].attn.pattern = new
        z, pattern = model.layers[1].attn.z.save(), model.layers[1].attn.pattern.save()
        after = model.layers[2].output.save()
    value = clean["layers.1.attn.value"].repeat_interleave(model.sizes().heads // model.sizes().kv_heads, 1)
    assert torch.equal(pattern, new)
    assert close(z, (new @ value).transpose(1, 2))
    assert not close(after, clean["layers.2.output"])


def test_after_the_scores_are_set_the_pattern_is_their_softmax(model: ip.Model, batch: Batch, clean: Any) -> None:
    new = noise(clean["layers.1.attn.scores"])
    with model.trace(**batch):
        model.layers[1].attn.scores = new
        pattern, z = model.layers[1].attn.pattern.save(), model.layers[1].attn.z.save()
    real = batch.get("attention_mask", torch.ones(new.shape[0], new.shape[2])).bool()
    value = clean["layers.1.attn.value"].repeat_interleave(model.sizes().heads // model.sizes().kv_heads, 1)
    assert close(pattern.transpose(1, 2)[real], new.softmax(-1).transpose(1, 2)[real])
    assert close(z, (pattern @ value).transpose(1, 2))


@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_queries_keys_and_values_make_scores_and_z(
    model: ip.Model, batch: Batch, clean: Any, put: Any, name: str
) -> None:
    at = {part: clean[f"layers.1.attn.{part}"] for part in ("query", "key", "value", "scores", "pattern")}
    at[name] = noise(at[name])
    with model.trace(**batch):
        put(model, f"layers.1.attn.{name}", at[name])
        scores, pattern = model.layers[1].attn.scores.save(), model.layers[1].attn.pattern.save()
        z = model.layers[1].attn.z.save()
    groups = model.sizes().heads // model.sizes().kv_heads
    seen = at["scores"] > -1e30
    products = at["query"] @ at["key"].repeat_interleave(groups, 1).transpose(2, 3) * scaling(model)
    if model.config.model_type == "gemma2":
        assert products[seen].abs().max() > 0.5
        products = 0.5 * torch.tanh(products / 0.5)
    assert close(scores[seen], (products + distances(model, batch))[seen])
    assert close(z, (pattern @ at["value"].repeat_interleave(groups, 1)).transpose(1, 2))


def scaling(model: ip.Model) -> float:
    """What the products of queries and keys are multiplied by."""
    attention = model.network.get_submodule(model.table().path("attn", 1) or "")
    if model.config.model_type in ("gpt_neo", "opt"):  # OPT scales its queries
        return 1.0
    return getattr(attention, "scaling", model.sizes().head_width ** -0.5)


def distances(model: ip.Model, batch: Batch) -> Any:
    """What ALiBi adds for each key: its number among the real tokens, by a slope for each of the four heads."""
    kind = model.config.model_type
    if kind != "bloom" and not getattr(model.config, "alibi", False):
        return 0.0
    real = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    slopes = torch.tensor([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8])
    added = slopes[:, None, None] * ((real.cumsum(-1) - 1) * real)[:, None, None, :]
    return added * (model.sizes().head_width ** -0.5 if kind == "falcon" else 1.0)


def test_a_write_to_result_adds_its_difference_to_what_attention_adds(
    model: ip.Model, batch: Batch, clean: Any
) -> None:
    with model.trace(**batch):
        result = model.layers[1].attn.result
        result[:, :, 2] = 0
        changed, adds = result.save(), model.layers[1].attn.output.save()
        output = model.layers[1].output.save()
    before = clean["layers.1.attn.result"]
    assert float(changed[:, :, 2].abs().max()) == 0
    assert torch.equal(changed[:, :, [0, 1, 3]], before[:, :, [0, 1, 3]])
    assert close(adds, clean["layers.1.attn.output"] - before[:, :, 2])
    assert not close(output, clean["layers.1.output"])


@pytest.mark.parametrize(
    "variant", ["gpt2", "neox", "neox-sequential", "llama", "phi3", "opt", "opt-post", "bert", "vit", "bloom"]
)
def test_without_a_post_norm_zeroing_a_result_is_zeroing_its_z(model: ip.Model, batch: Batch) -> None:
    logits = []
    for name in ("result", "z"):
        with model.trace(**batch):
            getattr(model.layers[1].attn, name)[:, :, 2] = 0
            logits.append(model.logits.save())
    assert close(*logits)


def test_a_layers_input_is_the_stream_for_both_its_branches(model: ip.Model, batch: Batch, clean: Any) -> None:
    new = noise(clean["layers.1.input"])
    with model.trace(**batch):
        model.layers[1].input = new
        adds, mlp = model.layers[1].attn.output.save(), model.layers[1].mlp.output.save()
        output = model.layers[1].output.save()
    assert close(output, through(model, new, adds, mlp))
    assert not close(adds, clean["layers.1.attn.output"])


@pytest.mark.parametrize("name", ["attn.output", "mlp.output"])
def test_what_a_block_adds_is_added(model: ip.Model, batch: Batch, clean: Any, put: Any, name: str) -> None:
    new = noise(clean[f"layers.1.{name}"])
    with model.trace(**batch):
        put(model, f"layers.1.{name}", new)
        stream, output = model.layers[1].input.save(), model.layers[1].output.save()
        adds, mlp = model.layers[1].attn.output.save(), model.layers[1].mlp.output.save()
    assert torch.equal(adds if name == "attn.output" else mlp, new)
    assert close(output, through(model, stream, adds, mlp))


WRITTEN = ["gpt2", "neox", "llama", "gemma3", "gemma2", "phi3", "opt-post", "bert", "gptj", "bloom", "falcon-grouped"]


@pytest.mark.parametrize("variant", WRITTEN)
@pytest.mark.parametrize("batch", ["padded"], indirect=True)
def test_writing_back_what_was_read_changes_nothing(
    model: ip.Model, batch: Batch, clean: Any, sites: Any, put: Any
) -> None:
    scale = max(1.0, float(clean["logits"].abs().max()))
    for name in (name for name in sites(model) if "layers" not in name or "layers.1" in name):
        with model.trace(**batch):
            put(model, name, model.site(name))
            logits = model.logits.save()
        difference = float((logits - clean["logits"]).abs().max())
        computed = name.endswith(("scores", "pattern"))  # the explicit kernel takes over
        assert difference <= (2e-6 * scale if computed else 0), name


@pytest.mark.parametrize("batch", ["padded"], indirect=True)
def test_every_site_can_be_written_at_once(model: ip.Model, batch: Batch, clean: Any, sites: Any, put: Any) -> None:
    with model.trace(**batch):
        for name in sites(model):
            put(model, name, model.site(name))
        logits = model.logits.save()
    assert close(logits, clean["logits"])


def test_a_vector_is_written_to_every_position(model: ip.Model, batch: Batch) -> None:
    vector = torch.linspace(-1, 1, model.sizes().width)
    with model.trace(**batch):
        model.layers[0].output = vector
        held = model.layers[1].input.save()
    assert torch.equal(held, vector.expand(held.shape))
    with model.trace(**batch):
        model.layers[0].output = 0
        held = model.layers[1].input.save()
    assert float(held.abs().max()) == 0


def test_the_derivative_by_a_result_is_that_by_what_attention_adds(model: ip.Model, batch: Batch) -> None:
    with model.trace(**batch):
        number = model.logits[..., 5].sum()
        by_result = ip.grad(number, model.layers[1].attn.result).save()
        by_sum = ip.grad(number, model.layers[1].attn.output).save()
    assert float(by_sum.abs().max()) > 0
    assert torch.equal(by_result, by_sum[:, :, None].expand_as(by_result))


@pytest.mark.parametrize("kind", ["query", "key", "value"])
def test_a_projection_makes_its_site_of_what_attention_reads(model: ip.Model, batch: Batch, kind: str) -> None:
    with model.trace(**batch):
        weights = model.projection(1, kind)
        made = torch.einsum("bpm,hdm->bphd", model.layers[1].attn.input, weights).save()
        site = getattr(model.layers[1].attn, kind[0]).save()
        shape = weights.shape
    dims = model.sizes()
    assert shape == (dims.heads if kind == "query" else dims.kv_heads, dims.head_width, dims.width)
    bias = (site - made)[0, 0]
    assert close(made + bias, site)
    has_bias = model.config.model_type in ("gpt2", "gpt_neox", "qwen2", "opt", "bert", "vit", "bloom")
    has_bias = has_bias or getattr(model.config, "bias", False) is True
    assert bool((bias.abs().max() > 1e-3) == has_bias)
