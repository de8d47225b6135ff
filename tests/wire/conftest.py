"""A tiny language model to run what has travelled."""

import pytest
import torch

import interpose as ip


@pytest.fixture(scope="session")
def model() -> ip.Model:
    """Three layers, four heads; no test changes it."""
    torch.manual_seed(3)
    sizes = {"layers": 3, "width": 24, "heads": 4, "kv_heads": 2, "neurons": 32, "vocab": 50, "pad_token_id": 0}
    return ip.build("llama", **sizes, bos_token_id=0, eos_token_id=1)


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.tensor([[5, 17, 3, 42, 8, 30, 11], [12, 4, 33, 21, 6, 19, 47]])
