"""Families whose models differ in form: bare stacks, norms behind the additions, capped logits, images, no head."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import RunError, ShapeError, SiteError, TraceError

SMALL = {"layers": 2, "heads": 4, "width": 16, "neurons": 24}
TEXT = {**SMALL, "vocab": 50, "positions": 16, "pad_token_id": 0}
IMAGE = {**SMALL, "vocab": 7, "image_size": 8, "patch_size": 4, "num_channels": 2}


@pytest.fixture
def image() -> ip.Model:
    torch.manual_seed(0)
    return ip.build("vit", **IMAGE)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(2, 2, 8, 8, generator=torch.manual_seed(3))


@pytest.mark.parametrize("batch", ["even"], indirect=True)
def test_the_head_of_the_last_stream_gives_the_logits(model: ip.Model, batch: dict[str, Any]) -> None:
    """Also behind a cap (Gemma 2), a projection (OPT), a transform (BERT), and of one position only (ViT)."""
    with model.trace(**batch):
        last = model.layers[-1].output
        if model.table().final_norm is not None:
            last = model.call.norm(last)
            assert last.shape == model.norm.output.shape
        made = model.call.unembed(last[:, 0] if model.table().reads == "pixels" else last).save()
        logits = model.logits.save()
    assert (made - logits).abs().max() < 1e-5


@pytest.mark.parametrize("family", ["llama", "opt", "bert", "vit", "gpt2"])
def test_a_stack_of_layers_without_a_head_has_all_sites_but_the_logits(family: str) -> None:
    model = ip.build(family, **(IMAGE if family == "vit" else TEXT))
    bare = ip.wrap(model.network.base_model)
    given = torch.randn(1, 2, 8, 8) if family == "vit" else torch.tensor([[5, 6, 7, 8]])
    values = []
    for each in (model, bare):
        with each.trace(given):
            stream, pattern = each.layers[1].output.save(), each.layers[1].attn.pattern.save()
            embed = each.embed.save()
        values.append((stream, pattern, embed))
    for whole, part in zip(*values, strict=True):
        assert torch.equal(whole, part)
    with pytest.raises(SiteError) as failure, bare.trace(given):
        _ = bare.logits
    head = {"bert": "masked-lm", "vit": "image-classification"}.get(family, "causal-lm")
    assert str(failure.value).partition(": ")[2] == (
        f"There is no logits: this network has no {head} head. "
        "Read layers[-1].output, or model.output for what the network returns."
    )
    with pytest.raises(SiteError, match=f"There is no logits: this network has no {head} head"), bare.trace(given):
        bare.call.unembed(bare.layers[1].output)


def test_where_there_is_no_last_norm_it_is_refused(make: Callable[..., ip.Model]) -> None:
    model = make("opt-post")
    with model.trace(torch.tensor([[5, 6, 7]])), pytest.raises(SiteError) as failure:
        _ = model.norm.output
    assert str(failure.value).partition(": ")[2] == (
        "There is no norm.output: this network has no norm between its last layer and its head. "
        "Read layers[-1].output, or model.output for what the network returns."
    )
    with model.trace(torch.tensor([[5, 6, 7]])), pytest.raises(SiteError, match=r"There is no norm\.output"):
        model.call.norm(model.layers[-1].output)


def test_opt_projects_between_the_stream_and_its_words() -> None:
    model = ip.build("opt", **TEXT, word_embed_proj_dim=10)
    ids = torch.tensor([[5, 6, 7, 8]])
    with model.trace(ids):
        embed, normed, logits = model.embed.save(), model.norm.output.save(), model.logits.save()
        made = model.call.unembed(model.norm.output).save()
    decoder = model.network.model.decoder
    with torch.no_grad():
        assert torch.equal(embed, decoder.project_in(decoder.embed_tokens(ids)))
    assert embed.shape == normed.shape == (1, 4, 16)
    assert torch.equal(made, logits)


def test_capped_logits_are_read_and_written_as_the_network_returns_them(make: Callable[..., ip.Model]) -> None:
    model, ids = make("gemma2"), torch.tensor([[5, 6, 7]])
    with model.trace(ids):
        raw, logits = model.module("lm_head").output.save(), model.logits.save()
    assert logits.abs().max() <= 0.5 < raw.abs().max()
    assert torch.equal(logits, torch.tanh(raw / 0.5) * 0.5)
    with model.trace(ids):
        model.logits[:, -1] = 50.0
        returned = model.output["logits"].save()
    assert bool((returned[:, -1] == 50).all())
    assert torch.equal(returned[:, :-1], logits[:, :-1])
    with pytest.raises(RunError, match=r"it returned a tuple in place of .* Leave return_dict=False out\."):  # noqa: SIM117
        with model.trace(ids, return_dict=False):
            model.logits.save()


def test_what_a_post_norm_block_reads_is_not_the_stream(make: Callable[..., ip.Model]) -> None:
    """A write to `attn.input` changes what attention reads; the sum and its norm go on from the old stream."""
    model, ids = make("bert"), torch.tensor([[5, 17, 3, 42]])
    norm = model.network.bert.encoder.layer[1].attention.output.LayerNorm
    with model.trace(ids):
        stream = model.layers[1].input.save()
        model.layers[1].attn.input = 0
        adds, mid, read = (
            model.layers[1].attn.output.save(),
            model.layers[1].mid.save(),
            model.layers[1].mlp.input.save(),
        )
    assert torch.equal(mid, read)
    assert (norm(stream + adds) - mid).abs().max() < 1e-5
    assert (adds - adds[:, :1]).abs().max() < 1e-6  # every position read the same


def test_bert_takes_token_types(make: Callable[..., ip.Model]) -> None:
    model, ids = make("bert"), torch.tensor([[5, 17, 3, 42]])
    types = torch.tensor([[0, 0, 1, 1]])
    with model.trace(ids, token_type_ids=types):
        logits = model.logits.save()
    with torch.no_grad():
        assert torch.equal(logits, model.network(ids, token_type_ids=types).logits)
        assert not torch.equal(logits, model.network(ids).logits)


def test_fused_keys_of_fixed_places_refuse_another_number(make: Callable[..., ip.Model]) -> None:
    model, ids = make("phi3"), torch.tensor([[5, 17, 3]])
    with pytest.raises(ShapeError) as failure, model.trace(ids):
        model.layers[0].attn.v = torch.zeros(1, 3, 4, 6)
    assert str(failure.value).endswith(
        "layers[0].attn.v has shape (1, 3, 2, 6) and cannot take a value of shape (1, 3, 4, 6). This family cuts keys "
        "and values out of one projection at fixed places; to give each query head its own, write attn.value."
    )
    with pytest.raises(RunError) as late, model.trace(ids):
        # The shape of a module's own value is not known before the run.
        model.layers[1].attn.k = model.module("model.layers.0.self_attn.o_proj").input.view(1, 3, 4, 6)
        model.logits.save()
    assert "come out of one projection with (24, 12, 12) numbers each" in str(late.value)
    assert "test_forms.py" in str(late.value)


def test_an_image_has_a_position_for_the_class_and_one_for_each_patch(image: ip.Model, pixels: torch.Tensor) -> None:
    with torch.no_grad():
        expected = image.network(pixels).logits
    for given in ((pixels,), ({"pixel_values": pixels},)):
        with image.trace(*given):
            assert image.layers[0].output.shape == (2, 5, 16)
            assert image.logits.shape == (2, 7)
            logits = image.logits.save()
        assert torch.equal(logits, expected)
    with image.trace(pixels[0]):
        alone = image.logits.save()
    assert (alone - expected[:1]).abs().max() < 1e-6
    with image.trace(pixel_values=torch.zeros(1, 2, 8, 16), interpolate_pos_encoding=True):
        assert image.layers[0].attn.pattern.shape == (1, 4, 9, 9)
        pattern = image.layers[0].attn.pattern.save()
    assert pattern.shape == (1, 4, 9, 9)


def test_a_patch_can_be_written(image: ip.Model, pixels: torch.Tensor) -> None:
    other = pixels.clone()
    other[:, :, 4:, :4] += 1.0  # the third patch of four
    with image.trace() as t:
        with t.world("other", other):
            embed = image.embed[:, 3]
        with t.world("image", pixels):
            image.embed[:, 3] = embed
            logits = image.logits.save()
    with torch.no_grad():
        assert (logits - image.network(other).logits).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("a cat", "a str"),
        (torch.tensor([[1, 2, 3]]), r"a tensor of shape \(1, 3\) and type int64"),
        (torch.zeros(1, 2, 8, 8, dtype=torch.uint8), r"a tensor of shape \(1, 2, 8, 8\) and type uint8"),
        ({"input_ids": torch.tensor([[1]])}, "input_ids"),
    ],
)
def test_a_model_of_images_says_what_it_takes(image: ip.Model, given: Any, said: str) -> None:
    expected = rf"vit takes pixel_values \[batch, channel, height, width\]; it was given {said}\."
    with pytest.raises(TraceError, match=expected):
        image.trace(given)


def test_a_batch_without_an_image_has_no_positions(image: ip.Model) -> None:
    expected = r"layers\[0\].output needs pixel_values; this world was given \['input_ids'\]"
    with pytest.raises(TraceError, match=expected), image.trace(ip.Batch(kwargs={"input_ids": torch.ones(1, 2)})):
        _ = image.layers[0].output
