"""A model's weights: by path, by head, and as one hash."""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

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


def weight_at(model: "Model", path: str) -> torch.Tensor:
    """A parameter or buffer by path.

    Raises:
        SiteError: there is none.
    """
    found = dict(named_weights(model.network)).get(path)
    if found is None:
        raise SiteError(f"{user_line()}: {model.info.name} has no weight at {path!r}. model.network prints its parts.")
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
    digest = hashlib.sha256()
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def projection(model: "Model", layer: int, kind: str) -> Any:
    """The weights that make one layer's queries, keys or values; see `Model.projection`."""
    table, sizes = model.table(), model.sizes()
    made = getattr(table, kind)
    heads = sizes.heads if kind == "query" else sizes.kv_heads
    weight = model.running().weight(f"{table.path(kind, layer)}.weight")
    weight = weight.T if table.transposed else weight
    if made.fusion == "heads":
        return weight.unflatten(0, (heads, 3, -1))[:, made.part]
    if made.fusion == "groups":
        rows = weight.unflatten(0, (sizes.kv_heads, -1, sizes.head_width))
        return rows[:, :-2].flatten(0, 1) if kind == "query" else rows[:, made.part - 3]
    if made.fusion == "blocks":
        weight = weight.chunk(3)[made.part]
    return weight.unflatten(0, (heads, -1))
