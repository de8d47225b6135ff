"""A tiny language model with a word tokenizer, and a plain network, for writing blocks about."""

from typing import Any

import pytest
import torch

import interpose as ip


class Words:
    """A tokenizer of one token a word; the same word always has the same number."""

    pad_token_id = 0
    eos_token_id = 1

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [2 + sum(map(ord, word)) % 47 for word in text.split()]}


def build(family: str = "llama", **config: Any) -> ip.Model:
    torch.manual_seed(3)
    sizes = {"layers": 3, "width": 24, "heads": 4, "neurons": 32, "vocab": 50, "pad_token_id": 0}
    model = ip.build(family, **sizes, bos_token_id=0, eos_token_id=1, **config)
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            weight.mul_(4).add_(0.2 * torch.randn_like(weight) if "norm" in name or "bias" in name else 0)
    return model


@pytest.fixture(scope="session")
def model() -> ip.Model:
    """Three layers, four heads, two key/value heads; no test changes it."""
    built = build(kv_heads=2)
    return ip.Model(built.network, tokenizer=Words(), info=built.info, attention=built.backend.attention)


@pytest.fixture(scope="session")
def gpt2() -> ip.Model:
    """Another family; no test changes it."""
    return build("gpt2")


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.tensor([[5, 17, 3, 42, 8, 30, 11], [12, 4, 33, 21, 6, 19, 47]])


@pytest.fixture
def net() -> ip.Model:
    """A plain network: three linear layers with functions between them."""
    torch.manual_seed(0)
    parts = [torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)]
    return ip.wrap(torch.nn.Sequential(*parts))


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.manual_seed(1))
