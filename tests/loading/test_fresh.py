"""Fresh networks from a config."""

from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import LoadError
from interpose.loading import fresh

SIZES = {"layers": 2, "width": 32, "heads": 4, "head_width": 8, "kv_heads": 4, "neurons": 48, "vocab": 50}


FAMILIES = [
    "gpt2",
    "gpt_neox",
    "llama",
    "gemma3_text",
    "olmo2",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "phi3",
    "opt",
    "bert",
]


@pytest.mark.parametrize("family", FAMILIES)
def test_one_set_of_size_names_works_for_every_family(family: str) -> None:
    model = ip.build(family, **SIZES, positions=16, pad_token_id=0)
    assert model.info.source == "build"
    assert model.config.model_type == family
    assert not model.network.training
    assert all(parameter.requires_grad for parameter in model.network.parameters())
    assert model.network.get_input_embeddings().weight.shape == (50, 32)
    dims = model.dims
    assert dims is not None
    assert {name: getattr(dims, name) for name in SIZES} == SIZES
    with torch.no_grad():
        assert model.network(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 50)


@pytest.mark.parametrize("family", ["gpt-j", "gpt_neo", "bloom", "falcon", "t5"])
def test_families_with_settings_of_their_own(family: str) -> None:
    """GPT-J's rotary positions, GPT-Neo's kinds of layer, BLOOM's fixed number of neurons, T5's second stack."""
    own: dict[str, dict[str, Any]] = {
        "gpt-j": {"rotary_dim": 4, "neurons": 48},
        "gpt_neo": {"attention_types": [[["global", "local"], 1]], "neurons": 48},
        "falcon": {"new_decoder_architecture": True, "kv_heads": 2, "neurons": 48},
        "t5": {"head_width": 10, "neurons": 48},
    }
    model = ip.build(family, layers=2, width=32, heads=4, vocab=50, **own.get(family, {}))
    dims = model.sizes()
    assert (dims.layers, dims.width, dims.heads, dims.vocab) == (2, 32, 4, 50)
    assert dims.neurons == (128 if family == "bloom" else 48)
    assert dims.kv_heads == (2 if family == "falcon" else 4)
    assert dims.head_width == (10 if family == "t5" else 8)
    assert type(model.network).__name__.endswith("ForConditionalGeneration" if family == "t5" else "ForCausalLM")


def test_a_model_of_images_has_classes_for_words() -> None:
    model = ip.build("vit", **SIZES, image_size=8, patch_size=4, num_channels=1)
    assert type(model.network).__name__ == "ViTForImageClassification"
    dims = model.dims
    assert dims is not None
    assert {name: getattr(dims, name) for name in SIZES} == SIZES
    with torch.no_grad():
        assert model.network(torch.zeros(1, 1, 8, 8)).logits.shape == (1, 50)


def test_the_config_may_use_the_family_s_own_names() -> None:
    network = fresh.stock("gpt2", n_layer=1, n_embd=16, n_head=2, vocab_size=20, activation_function="relu")
    assert len(network.transformer.h) == 1
    assert network.config.activation_function == "relu"


def test_the_caller_s_seed_decides_the_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return fresh.stock("llama", **SIZES).model.layers[1].mlp.up_proj.weight

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize(
    ("alias", "kind"),
    [
        ("pythia", "gpt_neox"),
        ("GPT-2", "gpt2"),
        ("gemma3", "gemma3_text"),
        ("OLMo-2", "olmo2"),
        ("Llama", "llama"),
        ("Phi-3", "phi3"),
    ],
)
def test_friendly_names(alias: str, kind: str) -> None:
    network = fresh.stock(alias, layers=1, width=16, heads=2, head_width=8, vocab=20, pad_token_id=0)
    assert network.config.model_type == kind


@pytest.mark.parametrize(
    ("family", "config", "text"),
    [
        ("lama", {}, "There is no family 'lama'. Nearest: llama"),
        ("gpt2", {"layer": 2}, "A gpt2 config has no 'layer'. Nearest: layers"),
        ("llama", {"num_layers": 2}, "A llama config has no 'num_layers'. Nearest: "),
        ("bloom", {"neurons": 2}, "A bloom config has no 'neurons'."),
        ("gpt2", {"heads": 4, "kv_heads": 2}, "A gpt2 config has no 'kv_heads'."),
        ("gpt2", {"width": 30, "heads": 4, "head_width": 8}, "A gpt2 config has no 'head_width'."),
        ("gpt2", {"width": 30, "heads": 4, "layers": 1, "vocab": 20}, "No gpt2 can be made with {'width': 30"),
        ("clip", {}, "No clip can be made with {}: Unrecognized configuration class"),
    ],
)
def test_what_cannot_be_made_is_said(family: str, config: dict[str, Any], text: str) -> None:
    with pytest.raises(LoadError) as caught:
        fresh.stock(family, **config)
    assert text in str(caught.value)
    assert "Nearest: neurons" not in str(caught.value)


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3", "llama"])
def test_heads_alone_give_as_many_key_value_heads(family: str) -> None:
    sizes = {"layers": 1, "width": 16, "heads": 2, "neurons": 16, "vocab": 20, "pad_token_id": 0}
    model = ip.build(family, **sizes)
    assert model.sizes().kv_heads == 2
    with model.trace(torch.tensor([[1, 2, 3]])):
        assert model.layers[0].attn.k.save().shape[:3] == (1, 3, 2)
    assert ip.build(family, **sizes, kv_heads=1).sizes().kv_heads == 1
    assert ip.build("mistral", layers=1, width=64, heads=16, neurons=16, vocab=20).sizes().kv_heads == 8
