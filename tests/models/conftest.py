"""Tiny stock networks of every family that has a table: random weights, random norm gains, random biases."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.graph.sites import LAYER_SITES, MODEL_SITES

_SHARED = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
_COMMON = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40, **_SHARED}
_WINDOWED = {
    "head_dim": 10,
    "num_key_value_heads": 2,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
_POSITIONS = {"max_position_embeddings": 32}
_RENAMED = {"hidden_size": 24, "num_layers": 3, "num_heads": 4, "intermediate_size": 40, **_SHARED}
_FALCON = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, **_SHARED}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_inner": 40, "n_positions": 32, **_SHARED}),
    "neox": ("gpt_neox", {"max_position_embeddings": 32, **_COMMON}),
    "neox-sequential": ("gpt_neox", {"max_position_embeddings": 32, "use_parallel_residual": False, **_COMMON}),
    "llama": ("llama", {"num_key_value_heads": 2, **_COMMON}),
    "gemma3": ("gemma3_text", {**_COMMON, **_WINDOWED}),
    "olmo2": ("olmo2", {"num_key_value_heads": 2, **_COMMON}),
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
EAGER = ("gptj", "gpt_neo", "bloom")
"""Families without a choice of kernels."""
VARIANTS = tuple(name for name in CONFIGS if name != "gpt_neo")
"""GPT-Neo has the tests of tests/models/test_inline.py."""

IDS = torch.tensor([[5, 17, 3, 42, 8, 30, 11, 26, 9], [12, 4, 33, 21, 6, 19, 47, 2, 14]])
MASK = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]])


def build(variant: str, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> ip.Model:
    """A tiny model whose every weight is random."""
    family, config = CONFIGS[variant]
    torch.manual_seed(0)
    model = ip.build(family, attn_implementation="eager" if variant in EAGER else attention, **config)
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            if "norm" in name or "ln_" in name:
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
        key = variant, dtype, attention
        if key not in made:
            made[key] = build(*key)
        return made[key]

    return model


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    """Each family and form in turn."""
    return request.param


@pytest.fixture
def model(variant: str, make: Callable[..., ip.Model]) -> ip.Model:
    """A tiny model of each variant in turn."""
    return make(variant)


@pytest.fixture(params=["even", "padded"])
def batch(request: pytest.FixtureRequest) -> dict[str, torch.Tensor]:
    """Token ids of two prompts, of equal length or with one padded on the left."""
    return {"input_ids": IDS} if request.param == "even" else {"input_ids": IDS, "attention_mask": MASK}


def _sites(model: ip.Model) -> list[str]:
    dims = model.sizes()
    local = [name for name in LAYER_SITES if not (dims.parallel and name == "mid")]
    return [*MODEL_SITES, *(f"layers.{layer}.{name}" for layer in range(dims.layers) for name in local)]


def _read(model: ip.Model, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
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
    """The values at every site, all read in one block."""
    return _read


@pytest.fixture(scope="session")
def put() -> Callable[..., None]:
    """`site = value`, by the site's name."""
    return _put
