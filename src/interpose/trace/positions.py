"""Positions on ragged batches.

Unequal prompts are padded on the left, so position -1 is every prompt's last token. A positive position counts from each
row's first real token; here such an index is turned into one that picks a different column in each row.
"""

from typing import Any

import torch

from interpose.errors import TraceError
from interpose.graph.feed import Batch
from interpose.graph.sites import Site
from interpose.trace.recorder import user_line


def place_index(index: Any, site: Site, batch: Batch) -> Any:
    """The index as it is meant.

    Args:
        index: what the user wrote between the brackets.
        site: the standard site that is indexed.
        batch: the inputs of its world.

    Returns:
        the same index where no row is padded or no positive position is named; else one with a column a row.

    Raises:
        TraceError: the positions named are not as many in each row.
    """
    padding = batch.padding
    axes = site.axes or ()
    if padding is None or not bool(padding.any()) or "P" not in axes:
        return index
    parts = list(index) if isinstance(index, tuple) else [index]
    parts = _without_dots(parts, len(axes))
    found = [(at, part) for at, part in enumerate(parts) if axes[at] == "P" and _is_positive(part)]
    if not found:
        return index
    at, part = found[0]
    if axes.count("P") > 1:
        raise TraceError(
            f"{user_line()}: on prompts of unequal length, {site} is indexed by positions from the end (-1 is the last)."
        )
    rows, columns = _rows(parts[0], padding), _columns(part)
    picked = padding[rows].to(torch.long)
    if isinstance(columns, torch.Tensor) and rows.ndim:
        rows, picked = rows[:, None], picked[:, None]
    parts[0], parts[at] = rows, picked + columns
    return tuple(parts)


def _without_dots(parts: list[Any], rank: int) -> list[Any]:
    if not any(part is Ellipsis for part in parts):
        return parts
    at = next(i for i, part in enumerate(parts) if part is Ellipsis)
    return [*parts[:at], *[slice(None)] * (rank - len(parts) + 1), *parts[at + 1 :]]


def _is_positive(part: Any) -> bool:
    if isinstance(part, slice):
        return any(isinstance(bound, int) and bound >= 0 for bound in (part.start, part.stop))
    return isinstance(part, int) and not isinstance(part, bool) and part >= 0


def _columns(part: Any) -> Any:
    if isinstance(part, int):
        return part
    start = part.start or 0
    if part.stop is None or start < 0 or part.stop < 0:
        raise TraceError(
            f"{user_line()}: on prompts of unequal length this slice has a different length in each row. "
            "Name both ends from the start ([:, 2:5]) or from the end ([:, -3:])."
        )
    return torch.arange(start, part.stop, part.step or 1)


def _rows(part: Any, padding: torch.Tensor) -> torch.Tensor:
    if isinstance(part, int):
        return torch.tensor(part)
    if isinstance(part, slice):
        return torch.arange(len(padding))[part]
    raise TraceError(f"{user_line()}: on prompts of unequal length, rows are given as a number or a slice.")
