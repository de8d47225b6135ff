"""The matrix of a linear module: its weight where that is the matrix, else what the module makes of the unit vectors.

A quantised module, or one with an adapter on it, has no weight that says all that it does; applied to the unit vectors,
it gives the matrix that it multiplies by.
"""

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.errors import RunError

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def is_plain(tensor: Any) -> bool:
    """Whether a tensor is torch's own and not a stand-in that keeps its numbers in another form."""
    return isinstance(tensor, Tensor) and type(tensor.data) is Tensor and not tensor.is_quantized


def plain_weight(module: torch.nn.Module, transposed: bool) -> Tensor | None:
    """The weight of a linear module, where it is the matrix that the module multiplies by; else None.

    Args:
        module: any module.
        transposed: its kind of module stores its weights input-first.
    """
    weight = module._parameters.get("weight")
    stock = transposed or type(module).forward is torch.nn.Linear.forward
    if not stock or not is_plain(weight) or weight is None or weight.dtype not in _FLOATS or weight.ndim != 2:
        return None
    return weight


def matrix_of(
    module: torch.nn.Module, path: str, like: Float[Tensor, "*some input"], transposed: bool
) -> Float[Tensor, "input output"]:
    """What a linear module multiplies its input by, without its bias.

    Args:
        module: the module.
        path: its path, for messages.
        like: an input of it: of this width, number type and device.
        transposed: its kind of module stores its weights input-first.

    Raises:
        RunError: the module does not turn vectors into vectors.
    """
    weight = plain_weight(module, transposed)
    if weight is not None:
        return weight if transposed else weight.T
    unit, zero = unit_vectors(like.shape[-1], like.dtype, like.device)
    found, bias = module(unit), module(zero)
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise RunError(f"The module {path!r} ({type(module).__name__}) does not turn vectors into vectors.")
    return (found - bias).to(like.dtype)


@lru_cache(maxsize=4)
def unit_vectors(width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The unit vectors [width, width] and the zero vector [1, width]."""
    with torch.inference_mode(False):
        return torch.eye(width, dtype=dtype, device=device), torch.zeros(1, width, dtype=dtype, device=device)


def weight_at(network: torch.nn.Module, path: str) -> Tensor:
    """A parameter or buffer of a network, by its path.

    Raises:
        RunError: there is none.
    """
    for find in (network.get_parameter, network.get_buffer):
        try:
            return find(path)
        except AttributeError:
            continue
    raise RunError(f"The model has no weight at {path!r}.")
