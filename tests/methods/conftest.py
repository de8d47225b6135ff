"""Models small or simple enough that what a method should find can be worked out by other means."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.tasks.base import Pairs

_SHARED = {"layers": 2, "heads": 2, "width": 24, "vocab": 50, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"positions": 32, "neurons": 40}),
    "neox": ("gpt_neox", {"neurons": 40}),
    "llama": ("llama", {"kv_heads": 1, "neurons": 40}),
    "gemma3": ("gemma3_text", {"kv_heads": 1, "neurons": 40, "head_width": 10, "sliding_window": 4}),
}


def build(variant: str, **config: Any) -> ip.Model:
    """A tiny model whose every weight is random."""
    family, own = CONFIGS[variant]
    torch.manual_seed(0)
    model = ip.build(family, **_SHARED, **own, **config)
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            if "norm" in name or "ln_" in name or name.endswith("bias"):
                weight += 0.2 * torch.randn_like(weight)
            else:
                weight *= 8
    model.network.requires_grad_(False)
    return model


@pytest.fixture(scope="session")
def make() -> Callable[[str], ip.Model]:
    """Tiny models by variant; no test changes one."""
    made: dict[str, ip.Model] = {}

    def model(variant: str) -> ip.Model:
        if variant not in made:
            made[variant] = build(variant)
        return made[variant]

    return model


def _pairs(ragged: bool) -> Pairs:
    random = torch.Generator().manual_seed(1)
    clean = torch.randint(2, 50, (3, 6), generator=random)
    corrupt = clean.clone()
    corrupt[:, [3, 5]] = (clean[:, [3, 5]] + 11) % 48 + 2
    lengths = torch.tensor([6, 3, 5] if ragged else [6, 6, 6])
    mask = torch.arange(6) >= 6 - lengths[:, None]
    names = ("one", "two", "three")
    answers, wrong = torch.tensor([3, 4, 5]), torch.tensor([20, 21, 22])
    tokens = torch.where(mask, clean, 0), torch.where(mask, corrupt, 0)
    return Pairs(names, names, *tokens, mask, answers, wrong, {"task": "made-up", "seed": 1})


@pytest.fixture(params=["even", "ragged"])
def pairs(request: pytest.FixtureRequest) -> Pairs:
    """Three pairs, of equal length or padded on the left."""
    return _pairs(request.param == "ragged")


@pytest.fixture
def even() -> Pairs:
    """Three pairs of equal length."""
    return _pairs(ragged=False)


def _linear(variant: str) -> ip.Model:
    """A stock network that is linear between its embeddings and its logits: even attention, no norms, plain MLPs."""
    activation = {"gpt2": {"activation_function": "linear"}, "llama": {}}.get(variant, {"hidden_act": "linear"})
    network: Any = build(variant, **activation).network
    body = {"gpt2": "transformer", "llama": "model"}.get(variant, "gpt_neox")
    for name, module in list(network.named_modules()):
        if name.endswith(("norm", "layernorm", "layer_norm", "ln_1", "ln_2", "ln_f")):
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, torch.nn.Identity())
        for kind in ("q_proj", "k_proj"):
            if hasattr(module, kind):
                getattr(module, kind).weight.zero_()
        if hasattr(module, "c_attn"):
            module.c_attn.weight[:, :48] = 0
            module.c_attn.bias[:48] = 0
        if hasattr(module, "query_key_value"):
            module.query_key_value.weight.view(2, 3, 12, 24)[:, :2] = 0
            module.query_key_value.bias.view(2, 3, 12)[:, :2] = 0
    if variant == "llama":  # whose gated MLP multiplies its input by itself
        for layer in network.get_submodule(body).layers:
            layer.mlp = torch.nn.Linear(24, 24)
    return ip.wrap(network.requires_grad_(False))


@pytest.fixture(params=["gpt2", "neox", "llama"])
def linear(request: pytest.FixtureRequest) -> ip.Model:
    """A linear network of several families."""
    return _linear(request.param)


# One head that writes nothing and one neuron: what it reads is 2.25 on the clean token and 0.75 on the corrupt one.
NEURON, CORRUPT_NEURON, DIRECT = 2.25, 0.75, 2.0


@pytest.fixture
def one_neuron() -> Callable[[str], tuple[ip.Model, Pairs]]:
    """m = DIRECT part of the embedding + f(neuron), for an activation function f by name."""

    def make(activation: str) -> tuple[ip.Model, Pairs]:
        sizes = {"layers": 1, "heads": 1, "width": 2, "neurons": 1, "vocab": 4, "positions": 4}
        special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": False}
        network: Any = ip.build("gpt2", **sizes, **special, activation_function=activation).network
        with torch.no_grad():
            for weight in network.parameters():
                weight.zero_()
            network.transformer.wte.weight[:2] = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
            mlp = network.transformer.h[0].mlp
            mlp.c_fc.weight[:] = torch.tensor([[1.0], [0.5]])
            mlp.c_fc.bias[:] = 0.25
            mlp.c_proj.weight[:] = torch.tensor([[0.0, 0.5]])
            network.lm_head.weight[2:] = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
        network.transformer.h[0].ln_1 = network.transformer.h[0].ln_2 = network.transformer.ln_f = torch.nn.Identity()
        clean, corrupt = torch.tensor([[0]]), torch.tensor([[1]])
        mask = torch.ones(1, 1, dtype=torch.bool)
        return ip.wrap(network), Pairs(("c",), ("d",), clean, corrupt, mask, torch.tensor([2]), torch.tensor([3]))

    return make


@pytest.fixture(scope="session")
def neuron() -> tuple[float, float, float]:
    """What the neuron reads on the clean and on the corrupt token, and what the embedding gives the logits itself."""
    return NEURON, CORRUPT_NEURON, DIRECT


@pytest.fixture
def two_mlps() -> Callable[[float], tuple[ip.Model, Pairs]]:
    """m = 2 (a + 4 relu(x + a - threshold)), a = relu(x) being what the first MLP writes; x is 1 clean, 0 corrupt."""

    def make(threshold: float) -> tuple[ip.Model, Pairs]:
        sizes = {"layers": 2, "heads": 1, "width": 2, "neurons": 1, "vocab": 4, "positions": 4}
        special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": False}
        network: Any = ip.build("gpt2", **sizes, **special, activation_function="relu").network
        body = network.transformer
        with torch.no_grad():
            for weight in network.parameters():
                weight.zero_()
            body.wte.weight[0, 0] = 1.0
            first, second = (layer.mlp for layer in body.h)
            first.c_fc.weight[0, 0] = first.c_proj.weight[0, 1] = 1.0
            second.c_fc.weight[:] = 1.0
            second.c_fc.bias[:] = -threshold
            second.c_proj.weight[0, 1] = 4.0
            network.lm_head.weight[2:, 1] = torch.tensor([1.0, -1.0])
        for layer in body.h:
            layer.ln_1 = layer.ln_2 = torch.nn.Identity()
        body.ln_f = torch.nn.Identity()
        mask, answers = torch.ones(1, 1, dtype=torch.bool), (torch.tensor([2]), torch.tensor([3]))
        return ip.wrap(network), Pairs(("c",), ("d",), torch.tensor([[0]]), torch.tensor([[1]]), mask, *answers)

    return make
