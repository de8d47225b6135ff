"""Positions on ragged batches.

Unequal prompts are padded on the left, so position -1 is every prompt's last token. A positive position counts from
each row's first real token; here such an index is split in two: one that picks the columns of each row, and the rest.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch

from interpose.errors import ShapeError, TraceError
from interpose.graph.feed import Batch
from interpose.graph.sites import Site
from interpose.trace.lines import user_line

_FROM_END = (
    "Name both ends from the start ([:, 2:5]) or from the end ([:, -3:]), or take one position or a list of positions."
)


@dataclass(frozen=True)
class Padding:
    """How a world's prompts are padded.

    Attributes:
        counts: how many padding tokens each row starts with [batch]; without an axis where one row was taken.
        ragged: any row starts with padding.
        right: any row ends with padding.
        prompts: the number of the prompt in each row, as `counts`.
    """

    counts: torch.Tensor
    ragged: bool
    right: bool
    prompts: torch.Tensor

    @classmethod
    def of(cls, batch: Batch, given_as: str = "") -> "Padding | None":
        """How a batch is padded; None where it is not. See `Family.given_as` for networks that are given two texts."""
        mask, ids = (batch.kwargs.get(f"{given_as}{name}") for name in ("attention_mask", "input_ids"))
        if mask is None or mask.ndim != 2 or bool(mask.all()):
            return None
        if ids is not None:
            mask = mask[:, -ids.shape[1] :]  # it may begin with positions whose keys and values are given
        counts = (mask.cumsum(-1) == 0).sum(-1).to("cpu")
        return cls(counts, bool(counts.any()), not bool(mask[:, -1].all()), torch.arange(len(counts)))

    def of_rows(self, rows: Any) -> "Padding":
        """How the rows that an index picks are padded."""
        return replace(self, counts=self.counts[rows], prompts=self.prompts[rows])


Axes = tuple[str | None, ...]
"""What the axes of a value are, as `Site.axes`; None for one whose elements have been picked."""


def taken(axes: Axes, index: Any, padding: Padding) -> tuple[Axes, Padding] | None:
    """What is left of a value's axes and padding after a plain index; None where the index is not plain."""
    parts = _parts(index, len(axes))
    if any(axis is None or not isinstance(part, int | slice) for _, axis, part in parts):
        return None
    left: list[str | None] = list(axes)
    for _, axis, part in parts:
        assert axis is not None
        if axes[axis] == "B":
            padding = padding.of_rows(part)
        elif _names_columns(part) and not isinstance(part, int) and axes[axis] == "P":
            left[axis] = None
    dropped = {axis for _, axis, part in parts if isinstance(part, int)}
    return tuple(name for axis, name in enumerate(left) if axis not in dropped), padding


def check_keys(index: Any, site: Site, axes: Axes, padding: Padding) -> None:
    """Check an index at a later step of a generation, where queries have one position, and keys have all so far.

    Raises:
        TraceError: it counts keys from the start, and the prompts have unequal lengths.
    """
    if not padding.ragged or not axes or axes[-1] != "P":
        return
    parts = _parts(index, len(axes))
    if any(axis == len(axes) - 1 and _names_columns(part) and _positive(part) is not None for _, axis, part in parts):
        raise TraceError(f"{user_line()}: {_from_end(site)}")


def _from_end(site: Site) -> str:
    return f"on prompts of unequal length, {site} is indexed by positions from the end (-1 is the last)."


def place_index(index: Any, site: Site, axes: Axes, padding: Padding, shape: torch.Size) -> tuple[Any, Any]:
    """The index as it is meant.

    Args:
        index: what the user wrote between the brackets.
        site: the standard site that is indexed, or a plain index of which is.
        axes: the axes of what is indexed.
        padding: how its rows are padded.
        shape: its shape.

    Returns:
        None and the same index where no row is padded or no positive position is named; else an index that picks each
        row's columns, and the index to be used on what that gives.

    Raises:
        TraceError: the positions named are not as many in each row, or the padding is on the right.
        ShapeError: a row has fewer tokens.
    """
    if not (padding.ragged or padding.right) or "P" not in axes:
        return None, index
    parts = _parts(index, len(axes))
    found = [(at, part) for at, axis, part in parts if axis is not None and axes[axis] == "P" and _names_columns(part)]
    if not found:
        return None, index
    if padding.right:
        raise TraceError(
            f"{user_line()}: this batch is padded on the right, so the positions of {site} have no common meaning. Pad "
            'on the left (tokenizer.padding_side = "left"), or give the prompts as a list of texts.'
        )
    at, part = found[0]
    columns = _positive(part)
    if columns is None:
        return None, index
    if (site.axes or ()).count("P") > 1:
        raise TraceError(f"{user_line()}: {_from_end(site)}")
    if not padding.counts.ndim:
        return None, _shifted(parts, at, padding, shape[axes.index("P")])
    rest = [part for _, _, part in parts]
    _check_lengths(columns, padding, rest[0], shape[axes.index("P")])
    grid = _grid(columns.flatten(), padding.counts, axes, shape)
    rest[at] = 0 if isinstance(part, int) else slice(None) if isinstance(part, slice) else _count(columns)
    return grid, tuple(rest)


def _parts(index: Any, rank: int) -> list[tuple[int, int | None, Any]]:
    """The parts of an index: where each stands, the axis it is about (None: a new or several axes), and the part."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(part is Ellipsis for part in parts):
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        missing = rank - sum(_width(part) for part in parts if part is not Ellipsis)
        parts = [*parts[:at], *[slice(None)] * missing, *parts[at + 1 :]]
    found, axis = [], 0
    for at, part in enumerate(parts):
        width = _width(part)
        found.append((at, axis if width == 1 and axis < rank else None, part))
        axis += width
    return found


def _width(part: Any) -> int:
    """How many axes a part of an index is about."""
    if part is None or isinstance(part, bool):
        return 0
    if getattr(part, "dtype", None) == torch.bool:
        return part.ndim
    return 1


def _names_columns(part: Any) -> bool:
    return not (isinstance(part, slice) and part == slice(None))


def _positive(part: Any) -> torch.Tensor | None:
    """The positions that a part names, where it names any from the start; None where it is to be taken as it is."""
    if isinstance(part, int):
        return torch.tensor([part]) if part >= 0 else None
    if isinstance(part, slice):
        return _positive_slice(part)
    if type(part) not in (torch.Tensor, list) and not hasattr(part, "__array__"):
        return None
    if type(part) is not torch.Tensor and isinstance(part, torch.Tensor):
        return None  # a value of the block: what it holds was counted in columns
    positions = torch.as_tensor(part)
    if positions.dtype == torch.bool:
        raise TraceError(
            f"{user_line()}: on prompts of unequal length a mask over positions picks other tokens in each row. "
            "Name positions by number, or use a mask of shape [batch, position]."
        )
    if bool((positions < 0).all()):
        return None
    if bool((positions < 0).any()):
        raise TraceError(f"{user_line()}: on prompts of unequal length, count all positions from one end. {_FROM_END}")
    return positions


def _positive_slice(part: slice) -> torch.Tensor | None:
    start, stop = part.start, part.stop
    if not any(isinstance(bound, int) and bound >= 0 for bound in (start, stop)):
        return None
    start = start or 0
    if stop is None or start < 0 or stop < 0:
        raise TraceError(
            f"{user_line()}: on prompts of unequal length this slice has a different length in each row. {_FROM_END}"
        )
    return torch.arange(start, stop, part.step or 1)


def _check_lengths(positions: torch.Tensor, padding: Padding, rows: Any, length: int) -> None:
    if not positions.numel():
        return
    picked = padding.of_rows(rows) if isinstance(rows, int | slice | list) else padding
    for prompt, count in zip(picked.prompts.flatten().tolist(), picked.counts.flatten().tolist(), strict=True):
        if int(positions.max()) >= length - count:
            raise ShapeError(
                f"{user_line()}: position {int(positions.max())} was asked for, and prompt {prompt} of the batch has "
                f"{length - count} tokens."
            )


def _shifted(parts: list[tuple[int, int | None, Any]], at: int, padding: Padding, length: int) -> tuple[Any, ...]:
    """An index of one row, with its positions counted from the row's first token."""
    part, count, index = parts[at][2], int(padding.counts), [part for _, _, part in parts]
    positions = _positive(part)
    assert positions is not None
    _check_lengths(positions, padding, None, length)
    if isinstance(part, slice):
        index[at] = slice((part.start or 0) + count, part.stop + count, part.step)
    else:
        index[at] = part + count if isinstance(part, int) else positions + count
    return tuple(index)


def _grid(positions: torch.Tensor, padding: torch.Tensor, axes: Axes, shape: torch.Size) -> tuple[Any, ...]:
    # Rows that the index does not pick may be shorter; any column will do for them.
    columns = (padding[:, None] + positions[None]).clamp(max=shape[axes.index("P")] - 1)
    rows = torch.arange(len(padding))
    if axes[1] == "P":
        return rows[:, None], columns
    return rows[:, None, None], torch.arange(shape[1])[None, :, None], columns[:, None]


def _count(columns: torch.Tensor) -> torch.Tensor:
    return torch.arange(columns.numel()).reshape(columns.shape)
