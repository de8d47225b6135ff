"""Tensors and the structures that modules return: copied, detached, moved, described."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor


def copied(value: Any) -> Any:
    """The value in memory of its own; structures keep their kind."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return type(value)(**{name: copied(item) for name, item in value.items()})
    return type(value)([copied(item) for item in value]) if type(value) in (tuple, list) else value


def detach(value: Any, own: Callable[[Tensor], Tensor]) -> Any:
    """The value without its derivative; structures keep their kind.

    Args:
        value: a tensor, or a structure of them.
        own: gives a tensor memory of its own where it needs some.
    """
    if isinstance(value, Tensor):
        return own(value.detach())
    if isinstance(value, dict):
        return type(value)(**{name: detach(item, own) for name, item in value.items()})
    if isinstance(value, tuple | list):
        items = [detach(item, own) for item in value]
        return type(value)(items) if type(value) in (tuple, list) else type(value)(*items)
    return value


def with_own_cache(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a network, with a copy of the key/value cache among them, which the network will add to."""
    cache = kwargs.get("past_key_values")
    if cache is None or isinstance(cache, tuple):
        return dict(kwargs)
    # Tensors that were computed with derivatives cannot be deep-copied, so they are copied first.
    layers = getattr(cache, "layers", None) or ()
    memo = {id(part): part.clone() for layer in layers for part in vars(layer).values() if isinstance(part, Tensor)}
    return {**kwargs, "past_key_values": deepcopy(cache, memo)}


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor of a structure."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)


def moved(value: Any, device: torch.device) -> Any:
    """Tensors, also inside tuples, lists and dictionaries, on a device."""
    if isinstance(value, torch.Tensor):
        return value if value.device == device else value.to(device)
    if type(value) is dict:
        return {name: moved(item, device) for name, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)([moved(item, device) for item in value])
    return value


def version_of(value: Tensor) -> int:
    """How often a tensor was changed in place; those of inference mode do not count it."""
    return 0 if value.is_inference() else value._version


def described(value: Any) -> str:
    """A value in one line: a number, a few numbers, a tensor's shape and range, or the shapes of several tensors."""
    if not isinstance(value, Tensor):
        return " ".join(_shapes(value).split())
    if value.numel() == 1 and value.dtype == torch.bool:
        return str(value.item())
    if value.numel() == 1:
        return f"{value.item():.6g}"
    shape = _shapes(value)
    if value.numel() <= 8 or not value.is_floating_point():
        return f"{shape} {value.detach().cpu().tolist()}" if value.numel() <= 64 else shape
    number = value.detach().float()
    return f"{shape} mean {number.mean():.4g}, std {number.std():.4g}, from {number.min():.4g} to {number.max():.4g}"


def _shapes(value: Any) -> str:
    """The kinds and shapes of tensors, also inside tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, dict):
        return f"{type(value).__name__}({', '.join(f'{name}: {_shapes(item)}' for name, item in value.items())})"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({', '.join(_shapes(item) for item in value)})"
    return repr(value)
