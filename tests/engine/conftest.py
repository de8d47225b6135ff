"""Plain networks for running graphs on."""

import pytest
import torch

import interpose as ip


@pytest.fixture
def net() -> ip.Model:
    """Three linear layers with functions between them."""
    torch.manual_seed(0)
    parts = [torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)]
    return ip.wrap(torch.nn.Sequential(*parts))


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.manual_seed(1))


@pytest.fixture(scope="session")
def model() -> ip.Model:
    """A tiny language model; no test changes it."""
    torch.manual_seed(3)
    sizes = {"layers": 3, "width": 24, "heads": 4, "kv_heads": 2, "neurons": 32, "vocab": 50, "pad_token_id": 0}
    return ip.build("llama", **sizes, bos_token_id=0, eos_token_id=1)


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.tensor([[5, 17, 3, 42, 8, 30, 11], [12, 4, 33, 21, 6, 19, 47]])
