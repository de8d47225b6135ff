"""How far two lists of scores agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.graph import markup
from interpose.search.selection import ranking
from interpose.search.units import same_units, sketch


class Overlap(NamedTuple):
    """How many of the `top` best units of two lists are the same, and how many would be if ranks were drawn by lot."""

    top: int
    shared: int
    chance: float


@dataclass(frozen=True)
class ScoresComparison:
    """How far two lists of scores agree; prints as a small table.

    Attributes:
        units: what was scored, in words.
        pearson: the correlation of the scores; NaN where all scores of one list are equal.
        spearman: the correlation of their ranks, where equals share the mean of their ranks; NaN likewise.
        overlaps: how many of the best units are the same.
    """

    units: str
    pearson: float
    spearman: float
    overlaps: tuple[Overlap, ...]

    def __str__(self) -> str:
        lines = [f"two scores of {self.units}", f"{'Pearson':<10}{self.pearson:>8.3f}"]
        lines += [f"{'Spearman':<10}{self.spearman:>8.3f}", f"{'best':<10}{'shared':>8}{'by chance':>12}"]
        return "\n".join(
            [*lines, *(f"{top:<10,}{same:>8,}{_rough(chance):>12}" for top, same, chance in self.overlaps)]
        )

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        correlations = [("Pearson", f"{self.pearson:.3f}"), ("Spearman", f"{self.spearman:.3f}")]
        rows = [(f"{top:,}", f"{shared:,}", _rough(chance)) for top, shared, chance in self.overlaps]
        return (
            markup.title(f"two scores of {self.units}")
            + markup.table([], correlations, left=[0])
            + markup.table(["best", "shared", "by chance"], rows)
        )


class Scored(NamedTuple):
    """A list of scores with the names of their units."""

    values: Float[Tensor, "units"]
    units: Sequence[str]


def compare_scores(first: Scored, second: Scored, top: Sequence[int] = ()) -> ScoresComparison:
    """Compare two lists of scores of the same units.

    Args:
        first: scores.
        second: other scores.
        top: how many of the best to compare; by default 10, 100, 1,000 and so on.

    Raises:
        SearchError: the units differ, or a number in `top` is out of range.
    """
    same_units(first.units, second.units)
    count = len(first.values)
    sizes = tuple(top) or tuple(10**i for i in range(1, 10) if 10**i < count) or (max(1, count // 2),)
    if wrong := [size for size in sizes if not 1 <= size <= count]:
        raise SearchError(f"Cannot compare the best {wrong[0]} of {count} units. Write numbers from 1 to {count}.")
    one, other = (scored.values.detach().double().cpu() for scored in (first, second))
    best = [ranking(values) for values in (one, other)]
    overlaps = []
    for size in sizes:
        inside = torch.isin(best[0][:size], best[1][:size])
        overlaps.append(Overlap(size, int(inside.sum()), size * size / count))
    return ScoresComparison(
        sketch(first.units), _correlation(one, other), _correlation(_ranks(one), _ranks(other)), tuple(overlaps)
    )


def _correlation(one: Float[Tensor, "units"], other: Float[Tensor, "units"]) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = float(one.norm() * other.norm())
    return float(one @ other) / size if size else float("nan")


def _ranks(values: Float[Tensor, "units"]) -> Float[Tensor, "units"]:
    """Ranks from 1; equals share the mean of their ranks."""
    _, inverse, counts = values.unique(sorted=True, return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2)[inverse].double()


def _rough(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
