"""Lenses: how a standard tensor is cut out of what a stock module takes or returns, and put back.

One lens a form of `graph.places.Place`. `get(raw, run)` gives the standard tensor; `put(raw, old, new)` gives `raw`
with the standard tensor changed from `old` to `new`. Where a site is not stored anywhere by itself (`mid`, `result`),
`put` adds the difference, so that writing back what was read changes no bit.
"""

from collections.abc import Callable, Mapping
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

    def matrix(self, place: Place, given: Tensor) -> Tensor:
        """What the output projection of a place multiplies its input by, given such an input [input, output]."""
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

    @classmethod
    def of(cls, cut: Callable[[Any], Any], paste: Callable[[Any, Any], Any]) -> "Lens":
        """A lens of a tensor that is stored as it is: cut out of what was found, and pasted into it."""
        return cls(lambda raw, _: cut(raw), lambda raw, _, new: paste(raw, new))


RAW = Lens(lambda raw, _: raw, lambda _, __, new: new)
"""A module's own input or output, whatever it is."""


def lens(place: Place) -> Lens:
    """The lens of a place."""
    heads, part = place.heads, place.part
    match place.form:
        case "plain":
            return Lens.of(first, replace_first)
        case "heads":
            return Lens.of(lambda raw: raw.unflatten(-1, (heads, -1)), lambda _, new: new.flatten(-2))
        case "blocks":
            assert place.dims is not None
            cut = place.dims.blocks
            return Lens.of(lambda raw: raw.split(cut, -1)[part].unflatten(-1, (heads, -1)), _paste_block(cut, part))
        case "fused":
            return Lens.of(lambda raw: raw.unflatten(-1, (heads, 3, -1))[..., part, :], _paste_fused(heads, part))
        case "groups":
            return Lens.of(lambda raw: _cut_groups(raw, place)[part], _paste_groups(place))
        case "rows":
            stream = dict(place.also)["stream"]
            return Lens(lambda raw, run: _by_row(raw, run.beside(stream)), lambda raw, _, new: new.reshape(raw.shape))
        case "logits":
            return Lens.of(_logits, lambda raw, new: type(raw)(**{**raw, "logits": new}))
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


def _by_row(raw: Tensor, stream: Tensor) -> Tensor:
    return raw.reshape(*stream.shape[:2], -1)


def _logits(raw: Any) -> Tensor:
    """What a network of transformers returns as `logits`."""
    if isinstance(raw, Mapping):
        return raw["logits"]
    raise RunError(
        f"The logits are taken from what the network returns, and it returned a {type(raw).__name__} in place of a "
        "structure with names. Leave return_dict=False out."
    )


def _paste_block(blocks: tuple[int, ...], part: int) -> Callable[[Any, Any], Tensor]:
    def paste(raw: Tensor, new: Tensor) -> Tensor:
        parts = list(raw.split(blocks, -1))
        if new.flatten(-2).shape != parts[part].shape:
            raise ValueError(  # the runner says after which write
                f"queries, keys and values come out of one projection with {blocks} numbers each, and a value of "
                f"shape {tuple(new.shape)} does not fit there; write attn.key or attn.value"
            )
        parts[part] = new.flatten(-2)
        return torch.cat(parts, -1)

    return paste


def _paste_fused(heads: int, part: int) -> Callable[[Any, Any], Tensor]:
    def paste(raw: Tensor, new: Tensor) -> Tensor:
        parts = list(raw.unflatten(-1, (heads, 3, -1)).unbind(-2))
        parts[part] = new
        return torch.stack(parts, -2).flatten(-3)

    return paste


def _cut_groups(raw: Tensor, place: Place) -> list[Tensor]:
    """Queries, keys and values [batch, position, head, width] of a projection fused by the heads that share a key.

    Where a write gave each query head a key and a value of its own, each is a group by itself.
    """
    assert place.dims is not None
    heads, shared, width = place.dims.heads, place.dims.kv_heads, place.dims.head_width
    groups = shared if raw.shape[-1] == (heads + 2 * shared) * width else heads
    rows = raw.unflatten(-1, (groups, -1, width))
    return [rows[..., :-2, :].flatten(-3, -2), rows[..., -2, :], rows[..., -1, :]]


def _paste_groups(place: Place) -> Callable[[Any, Any], Tensor]:
    def paste(raw: Tensor, new: Tensor) -> Tensor:
        parts = _cut_groups(raw, place)
        parts[place.part] = new
        query, key, value = parts
        groups = max(key.shape[-2], value.shape[-2])
        key, value = (x.repeat_interleave(groups // x.shape[-2], -2).unsqueeze(-2) for x in (key, value))
        return torch.cat([query.unflatten(-2, (groups, -1)), key, value], -2).flatten(-3)

    return paste


def _get_result(place: Place) -> Callable[[Any, Run], Tensor]:
    also = dict(place.also)

    def get(raw: Any, run: Run) -> Tensor:
        z = run.beside(also["z"])
        matrix = run.matrix(place, z.flatten(2))
        result = torch.einsum("bphd,hdm->bphm", z, matrix.unflatten(0, (z.shape[2], -1)))
        if "before" not in also:
            return result
        # A post-norm multiplies by its gain over its denominator: both are in what it made of its input.
        before, after = first(run.beside(also["before"])), first(raw)
        scale = torch.where(before == 0, torch.zeros_like(after), after / torch.where(before == 0, 1.0, before))
        return result * scale.detach().unsqueeze(2)

    return get
