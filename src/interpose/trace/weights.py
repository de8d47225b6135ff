"""A model's weights: by path, by head, and as one hash."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from interpose.engine.matrices import is_plain, plain_weight, unit_vectors
from interpose.errors import SiteError
from interpose.trace.lines import user_line

if TYPE_CHECKING:
    from interpose.trace.model import Model


def named_weights(network: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every buffer and parameter with its path; a tied one once."""
    yield from network.named_buffers()
    yield from network.named_parameters()


def weight_paths(network: torch.nn.Module) -> dict[int, str]:
    """The path of every parameter and buffer, by identity."""
    return {id(weight): path for path, weight in named_weights(network)}


def buffer_at(network: torch.nn.Module, tensor: torch.Tensor) -> str | None:
    """The path of a buffer, by identity; None where the tensor is none of the network's.

    A tensor that something was computed from is told apart at once; else the few modules that have buffers are asked.
    """
    for path, module in _with_buffers(network):
        for name, buffer in module._buffers.items():
            if buffer is tensor:
                return f"{path}.{name}" if path else name
    return None


def _with_buffers(network: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    found = _BUFFERED.get(network)
    if found is None:
        found = [(path, module) for path, module in network.named_modules() if module._buffers]
        _BUFFERED[network] = found
    return found


_BUFFERED: WeakKeyDictionary[torch.nn.Module, list[tuple[str, torch.nn.Module]]] = WeakKeyDictionary()
"""The modules of a network that had buffers when it was first looked through."""


def weight_at(model: "Model", path: str) -> torch.Tensor:
    """A parameter or buffer by path.

    Raises:
        SiteError: there is none.
    """
    found = dict(named_weights(model.network)).get(path)
    if found is None:
        raise SiteError(f"{user_line()}: {model.info.name} has no weight at {path!r}. model.network prints its parts.")
    if not is_plain(found):
        raise SiteError(
            f"{user_line()}: the weight at {path!r} is kept in another form ({type(found.data).__name__}), so it "
            "cannot be computed with. Apply its module instead: model.call.module(path, value)."
        )
    return found


def module_at(model: "Model", path: str) -> torch.nn.Module:
    """A module by path.

    Raises:
        SiteError: there is none; the message lists the nearest.
    """
    try:
        return model.network.get_submodule(path)
    except AttributeError as error:
        raise SiteError(
            f"{user_line()}: {model.info.name} has no module at {path!r}. {model.backend.nearest(path)}"
        ) from error


def hash_of(network: torch.nn.Module) -> str:
    """sha256 of every parameter and buffer, by name, as hex."""
    return hash_of_tensors(network.state_dict())


def hash_of_tensors(tensors: Mapping[str, Any]) -> str:
    """sha256 of tensors, by name, as hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        for part in _bytes_of(tensor):
            digest.update(part)
    return digest.hexdigest()


def _bytes_of(value: Any) -> Iterator[bytes]:
    """The bytes of a tensor; of a quantised one, or a structure of them, those of its parts."""
    if hasattr(value, "__tensor_flatten__"):
        for name in value.__tensor_flatten__()[0]:
            yield from _bytes_of(getattr(value, name))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _bytes_of(part)
    elif not isinstance(value, torch.Tensor) or value.is_quantized:
        yield repr(value).encode() if not isinstance(value, torch.Tensor) else repr(value.qscheme()).encode()
        if isinstance(value, torch.Tensor):
            yield from _bytes_of((value.int_repr(), value.dequantize()))
    else:
        yield value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def projection(model: "Model", layer: int, kind: str) -> Any:
    """The weights that make one layer's queries, keys or values, or its output; see `Model.projection`."""
    table, sizes = model.table(), model.sizes()
    path = table.path(kind, layer) or ""
    if kind == "out":
        return _matrix(model, path, sizes.heads * sizes.head_width).T.unflatten(0, (sizes.heads, -1))
    made, weight = getattr(table, kind), _matrix(model, path, sizes.width)
    heads = sizes.heads if kind == "query" else sizes.kv_heads
    if made.fusion == "heads":
        return weight.unflatten(0, (heads, 3, -1))[:, made.part]
    if made.fusion == "groups":
        rows = weight.unflatten(0, (sizes.kv_heads, -1, sizes.head_width))
        return rows[:, :-2].flatten(0, 1) if kind == "query" else rows[:, made.part - 3]
    if made.fusion == "blocks":
        weight = weight.split(sizes.blocks)[made.part]
    return weight.unflatten(0, (heads, -1))


def _matrix(model: "Model", path: str, width: int) -> Any:
    """The matrix of a linear module with inputs of some width [output, input]."""
    transposed, block = model.table().transposed, model.running()
    if plain_weight(module_at(model, path), transposed) is not None:
        weight = block.weight(f"{path}.weight")
        return weight.T if transposed else weight
    unit, zero = unit_vectors(width, model.dtype, model.device)
    return (block.call(path, (unit,)) - block.call(path, (zero,))).T
