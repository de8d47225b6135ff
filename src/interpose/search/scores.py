"""What a search returns: a score for every unit, from which circuits are cut.

There is one sign convention: a positive score says that the unit helps the behaviour, so that the metric falls when
it is taken away. It stands in every score's metadata, and scores that claim another are refused.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.graph import markup
from interpose.models.stream import EdgeNames, StreamGraph
from interpose.search.circuit import Circuit
from interpose.search.comparison import Scored, ScoresComparison, compare_scores
from interpose.search.selection import greedy as grow, ranking, top_n
from interpose.search.storage import Stored, read, write
from interpose.search.units import graph_of, sketch

SIGN = "positive = the part helps the behaviour"


class Ranked(NamedTuple):
    """One line of a table of units: rank from 1, name, score."""

    rank: int
    unit: str
    score: float


@dataclass(frozen=True)
class Top:
    """The best units in order; prints as a table, and is a sequence of `Ranked`."""

    rows: tuple[Ranked, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Ranked]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> Ranked:
        return self.rows[index]

    def __str__(self) -> str:
        width = max((len(row.unit) for row in self.rows), default=4)
        lines = [f"{'rank':>4}  {'unit':<{width}}  {'score':>11}"]
        lines += [f"{rank:>4}  {unit:<{width}}  {score:>+11.4g}" for rank, unit, score in self.rows]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = [(row.rank, row.unit, f"{row.score:+.4g}") for row in self.rows]
        return markup.table(["rank", "unit", "score"], rows, left=[1])


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """One score for every unit.

    Attributes:
        values: the scores; positive where the unit helps the behaviour.
        units: the units' names in the same order; for edges, `StreamGraph(...).edges`.
        meta: how they came about: model, weights_hash, task, seed, method, mediator, settings, versions, examples,
            timings. `sign` is always there.

    Raises:
        SearchError: a score is NaN, values and units differ in number, or `meta` claims another sign convention.
    """

    values: Float[Tensor, "units"]
    units: Sequence[str]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.values) != len(self.units):
            raise SearchError(
                f"There are {len(self.values)} scores for {len(self.units)} units. Give one score a unit."
            )
        unscored = self.values.isnan().nonzero()
        if len(unscored):
            raise SearchError(
                f"The score of {self.units[int(unscored[0])]} is NaN, and {len(unscored)} of {len(self.values)} are. "
                "A unit without a score cannot be ranked: find out why the method gave none."
            )
        sign = self.meta.get("sign", SIGN)
        if sign != SIGN:
            raise SearchError(
                f"These scores say their sign is {sign!r}; here it is always {SIGN!r}. Negate the values if they mean "
                "the opposite, and leave 'sign' out."
            )
        object.__setattr__(self, "values", self.values.detach())
        object.__setattr__(self, "meta", {"sign": SIGN, **self.meta})

    @property
    def graph(self) -> StreamGraph:
        """The graph whose edges are scored. Raises SearchError where the units are not edges."""
        return graph_of(self.units)

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, unit: str) -> float:
        """The score of one unit, by name. Raises SiteError or SearchError where there is no such unit."""
        if isinstance(self.units, EdgeNames):
            return float(self.values[self.units.number(unit)])
        if unit not in self.units:
            raise SearchError(f"There is no unit {unit!r} here. The units are {sketch(self.units)}.")
        return float(self.values[self.units.index(unit)])

    def top(self, k: int = 10, *, absolute: bool = False) -> Top:
        """The k best units, which print as a table.

        Args:
            k: how many; all of them where there are fewer.
            absolute: rank by size; the score shown keeps its sign.
        """
        best = ranking(self.values, absolute=absolute)[: max(k, 0)].tolist()
        return Top(tuple(Ranked(i, self.units[int(unit)], float(self.values[unit])) for i, unit in enumerate(best, 1)))

    def circuit(self, n: int, *, absolute: bool = False, greedy: bool = False, pruned: bool = True) -> Circuit:
        """The n best units; where they are edges, what of them lies on a path from `input` to `logits`.

        Args:
            n: how many units to take, counted before pruning.
            absolute: take the largest scores, whatever their sign.
            greedy: take edges from the logits on backwards, each time the best that leads into what is there already.
            pruned: drop edges that lead nowhere; units that are not edges have nothing to prune.

        Raises:
            SearchError: n is negative or more than there are, or greedy units are not edges.
        """
        mask = (
            grow(self.values, n, self.graph, absolute=absolute) if greedy else top_n(self.values, n, absolute=absolute)
        )
        meta = {**self.meta, "absolute": absolute} | ({"greedy": True} if greedy else {})
        circuit = Circuit(mask, self.units, n, meta=meta)
        return circuit.prune() if pruned and isinstance(self.units, EdgeNames) else circuit

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to one safetensors file, whole or not at all, and return its path."""
        return write(path, "scores", Stored(self.values, self.units, self.meta, {}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Scores":
        """Read what `save` wrote. Raises SearchError where the file is missing, damaged or something else."""
        stored = read(path, "scores")
        if not stored.tensor.is_floating_point():
            raise SearchError(
                f"{os.fspath(path)} is damaged: scores are stored as {stored.tensor.dtype}, not as floats."
            )
        return cls(stored.tensor, stored.units, stored.meta)

    def compare(self, other: "Scores", top: Sequence[int] = ()) -> ScoresComparison:
        """How far other scores of the same units agree: correlations, and how many of the best units are the same.

        Args:
            other: the other scores.
            top: how many of the best units to compare; by default 10, 100, 1,000 and so on.

        Raises:
            SearchError: the two are not about the same units, or a number in `top` is out of range.
        """
        return compare_scores(Scored(self.values, self.units), Scored(other.values, other.units), top)

    def _repr_html_(self) -> str:
        best, worst = self.top(10), [] if len(self) <= 10 else self._lowest()
        shown = [(row.unit, row.score) for row in [*best, *worst]]
        rows = [(row.rank, row.unit, f"{row.score:+.4g}") for row in best]
        table = markup.table(["rank", "unit", "score"], rows, left=[1])
        note = "the best, then the lowest" if worst else "all"
        return markup.title(repr(self)) + table + markup.title(note) + markup.bars(shown)

    def _lowest(self, k: int = 5) -> list[Ranked]:
        order = ranking(self.values)[10:][-k:].tolist()
        first = len(self) - len(order) + 1
        return [Ranked(i, self.units[int(unit)], float(self.values[unit])) for i, unit in enumerate(order, first)]

    def __repr__(self) -> str:
        made = [str(self.meta[key]) for key in ("method", "task", "model") if key in self.meta]
        best = [f"best {row.unit} {row.score:+.4g}" for row in self.top(1)]
        return f"Scores({', '.join([sketch(self.units), *made, *best])})"
