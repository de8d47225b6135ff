"""Tiny stock networks of every family that has a table: random weights, random norm gains, random biases."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.graph.sites import LAYER_SITES, MODEL_SITES

_SHARED = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
_COMMON = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40, **_SHARED}
_SLIDING = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_GROUPED = {"num_key_value_heads": 2, **_COMMON}
_OPT = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "ffn_dim": 40,
    "max_position_embeddings": 32,
    **_SHARED,
}
_POSITIONS = {"max_position_embeddings": 32}
_RENAMED = {"hidden_size": 24, "num_layers": 3, "num_heads": 4, "intermediate_size": 40, **_SHARED}
_FALCON = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, **_SHARED}
_VIT = {"image_size": 8, "patch_size": 4, "num_channels": 2, "num_labels": 7}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_inner": 40, "n_positions": 32, **_SHARED}),
    "neox": ("gpt_neox", {"max_position_embeddings": 32, **_COMMON}),
    "neox-sequential": ("gpt_neox", {"max_position_embeddings": 32, "use_parallel_residual": False, **_COMMON}),
    "llama": ("llama", _GROUPED),
    "gemma3": ("gemma3_text", {"head_dim": 10, **_GROUPED, **_SLIDING}),
    "olmo2": ("olmo2", _GROUPED),
    "mistral": ("mistral", {"sliding_window": 4, **_GROUPED}),
    "qwen2": ("qwen2", {"use_sliding_window": True, **_GROUPED, **_SLIDING}),
    "qwen3": ("qwen3", {"head_dim": 10, **_GROUPED}),
    "gemma2": (
        "gemma2",
        {
            "head_dim": 10,
            "query_pre_attn_scalar": 7,
            "attn_logit_softcapping": 0.5,
            "final_logit_softcapping": 0.5,
            **_GROUPED,
            **_SLIDING,
        },
    ),
    "phi3": ("phi3", _GROUPED),
    "opt": ("opt", {"word_embed_proj_dim": 24, **_OPT}),
    "opt-post": ("opt", {"word_embed_proj_dim": 16, "do_layer_norm_before": False, **_OPT}),
    "bert": ("bert", {"max_position_embeddings": 32, **_COMMON}),
    "vit": ("vit", {**_VIT, **{k: v for k, v in _COMMON.items() if k not in _SHARED}}),
    "gptj": ("gptj", {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_inner": 40, "rotary_dim": 4, **_SHARED}),
    "gpt_neo": (
        "gpt_neo",
        {"attention_types": [[["local"], 1], [["global", "local"], 1]], "window_size": 4, **_POSITIONS, **_RENAMED},
    ),
    "bloom": ("bloom", {"hidden_size": 24, "n_layer": 3, "n_head": 4, **_SHARED}),
    "falcon": ("falcon", {"ffn_hidden_size": 40, **_POSITIONS, **_FALCON}),
    "falcon-grouped": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True, **_FALCON}),
    "falcon-rw": ("falcon", {"multi_query": False, "parallel_attn": False, "alibi": True, "bias": True, **_FALCON}),
}
EAGER = ("gptj", "gpt_neo", "bloom", "gemma2")
"""Families without a choice of kernels; no other kernel of transformers caps Gemma 2's scores."""
VARIANTS = tuple(name for name in CONFIGS if name != "gpt_neo")
"""GPT-Neo has the tests of tests/models/test_inline.py, and those whose file names it."""

IDS = torch.tensor([[5, 17, 3, 42, 8, 30, 11, 26, 9], [12, 4, 33, 21, 6, 19, 47, 2, 14]])
PIXELS = torch.randn(2, 2, 8, 8, generator=torch.manual_seed(3))
LARGER = torch.randn(2, 2, 8, 12, generator=torch.manual_seed(4))
MASK = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]])


def build(variant: str, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> ip.Model:
    """A tiny model whose every weight is random."""
    family, config = CONFIGS[variant]
    torch.manual_seed(0)
    model = ip.build(family, attn_implementation=attention, **config)
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            if "norm" in name.lower() or "ln_" in name:
                weight += 0.3 * torch.randn_like(weight)
            elif name.endswith("bias"):
                weight += 0.1 * torch.randn_like(weight)
            else:
                weight *= 4  # far from linear, so that a wrong place shows
    model.network.to(dtype)
    return model


@pytest.fixture(scope="session")
def make() -> Callable[..., ip.Model]:
    """Tiny models by variant, number type and attention kernel; no test changes one."""
    made: dict[Any, ip.Model] = {}

    def model(variant: str, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> ip.Model:
        key = variant, dtype, "eager" if variant in EAGER else attention
        if key not in made:
            made[key] = build(*key)
        return made[key]

    return model


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on every family and form, less those that its file leaves out; a test may name its own."""
    own = any("variant" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "variant" in metafunc.fixturenames and not own:
        left_out, also = (getattr(metafunc.module, name, ()) for name in ("LEFT_OUT", "ALSO"))
        metafunc.parametrize("variant", [*(name for name in VARIANTS if name not in left_out), *also])


@pytest.fixture
def model(variant: str, make: Callable[..., ip.Model]) -> ip.Model:
    """A tiny model of each variant in turn."""
    return make(variant)


@pytest.fixture(params=["even", "padded"])
def batch(request: pytest.FixtureRequest, variant: str) -> dict[str, Any]:
    """Token ids of two prompts, of equal length or with one padded on the left; two images, small or larger."""
    if variant == "vit":
        even = request.param == "even"
        return {"pixel_values": PIXELS} if even else {"pixel_values": LARGER, "interpolate_pos_encoding": True}
    return {"input_ids": IDS} if request.param == "even" else {"input_ids": IDS, "attention_mask": MASK}


def _sites(model: ip.Model) -> list[str]:
    dims, table = model.sizes(), model.table()
    lacks = {"mid"} if dims.parallel else {"norm.output"} if table.final_norm is None else set()
    local = [name for name in LAYER_SITES if name not in lacks]
    whole = [name for name in MODEL_SITES if name not in lacks]
    return [*whole, *(f"layers.{layer}.{name}" for layer in range(dims.layers) for name in local)]


def _read(model: ip.Model, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    with model.trace(**batch) as t:
        for name in _sites(model):
            model.site(name).save(name)
    return t.saved


def _put(model: ip.Model, name: str, value: Any) -> None:
    *parts, last = name.split(".")
    place: Any = model
    for part in parts:
        place = place[int(part)] if part.isdigit() else getattr(place, part)
    setattr(place, last, value)


@pytest.fixture(scope="session")
def sites() -> Callable[[ip.Model], list[str]]:
    """The names of all standard sites that a model has."""
    return _sites


@pytest.fixture(scope="session")
def read() -> Callable[..., dict[str, torch.Tensor]]:
    """The values at every site, all read in one block; each model is read once on each batch."""
    found: dict[Any, dict[str, torch.Tensor]] = {}

    def read(model: ip.Model, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        key = model, tuple((name, id(value)) for name, value in batch.items())
        if key not in found:
            found[key] = _read(model, batch)
        return dict(found[key])

    return read


@pytest.fixture(scope="session")
def put() -> Callable[..., None]:
    """`site = value`, by the site's name."""
    return _put
