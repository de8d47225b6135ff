"""Lenses: how a standard tensor is cut out of what a stock module takes or returns, and put back.

One lens a form of `graph.places.Place`. `get(raw, run)` gives the standard tensor; `put(raw, old, new)` gives `raw` with the
standard tensor changed from `old` to `new`. Where a site is not stored anywhere by itself (`mid`, `result`), `put` adds
the difference, so that writing back what was read changes no bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from interpose.errors import RunError
from interpose.graph.places import Place


@runtime_checkable
class Run(Protocol):
    """What a lens may ask of the run it is used in."""

    def beside(self, place: Place) -> Any:
        """What was captured at another place, earlier in this call."""
        ...

    def weight(self, path: str) -> Tensor:
        """A parameter of the network."""
        ...


@dataclass(frozen=True)
class Lens:
    """A pair of functions.

    Attributes:
        get: from what was found, in a run, to the site's value.
        put: from what was found, the old and the new value to what goes on.
    """

    get: Callable[[Any, Run], Any]
    put: Callable[[Any, Any, Any], Any]


RAW = Lens(get=lambda raw, run: raw, put=lambda raw, old, new: new)
"""A module's own input or output, whatever it is."""


def lens(place: Place) -> Lens:
    """The lens of a place."""
    match place.form:
        case "plain":
            return Lens(lambda raw, run: first(raw), lambda raw, old, new: replace_first(raw, new))
        case "heads":
            return Lens(lambda raw, run: raw.unflatten(-1, (place.heads, -1)), lambda raw, old, new: new.flatten(-2))
        case "blocks":
            return Lens(
                lambda raw, run: raw.chunk(3, -1)[place.part].unflatten(-1, (place.heads, -1)), _put_block(place)
            )
        case "fused":
            return Lens(lambda raw, run: raw.unflatten(-1, (place.heads, 3, -1))[..., place.part, :], _put_fused(place))
        case "mid":
            stream = dict(place.also)["stream"]
            return Lens(lambda raw, run: run.beside(stream) + first(raw), lambda raw, old, new: _add(raw, new - old))
        case "result":
            return Lens(_get_result(place), lambda raw, old, new: _add(raw, (new - old).sum(2)))
    return RAW


def first(raw: Any) -> Tensor:
    """The tensor itself, or the first of those that a module returned together."""
    if isinstance(raw, Tensor):
        return raw
    if isinstance(raw, tuple | list) and raw and isinstance(raw[0], Tensor):
        return raw[0]
    raise RunError(f"Expected a tensor, or a tuple that starts with one; the module gave {type(raw).__name__}.")


def replace_first(raw: Any, new: Tensor) -> Any:
    """`raw` with its (first) tensor replaced."""
    return new if isinstance(raw, Tensor) else type(raw)([new, *raw[1:]])


def _add(raw: Any, difference: Tensor) -> Any:
    return replace_first(raw, first(raw) + difference)


def _put_block(place: Place) -> Callable[[Any, Any, Any], Tensor]:
    def put(raw: Tensor, old: Tensor, new: Tensor) -> Tensor:
        parts = list(raw.chunk(3, -1))
        parts[place.part] = new.flatten(-2)
        return torch.cat(parts, -1)

    return put


def _put_fused(place: Place) -> Callable[[Any, Any, Any], Tensor]:
    def put(raw: Tensor, old: Tensor, new: Tensor) -> Tensor:
        parts = list(raw.unflatten(-1, (place.heads, 3, -1)).unbind(-2))
        parts[place.part] = new
        return torch.stack(parts, -2).flatten(-3)

    return put


def _get_result(place: Place) -> Callable[[Any, Run], Tensor]:
    also = dict(place.also)

    def get(raw: Any, run: Run) -> Tensor:
        z, matrix = run.beside(also["z"]), run.weight(f"{place.weight}.weight")
        matrix = matrix if place.transposed else matrix.T
        result = torch.einsum("bphd,hdm->bphm", z, matrix.unflatten(0, (z.shape[2], -1)))
        if "before" not in also:
            return result
        # A post-norm multiplies by its gain over its denominator: both are in what it made of its input.
        before, after = first(run.beside(also["before"])), first(raw)
        scale = torch.where(before == 0, torch.zeros_like(after), after / torch.where(before == 0, 1.0, before))
        return result * scale.detach().unsqueeze(2)

    return get
