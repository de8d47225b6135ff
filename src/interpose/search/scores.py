"""What a search returns: a score for every unit, and the circuits cut from it.

There is one sign convention: a positive score says that the unit helps the behaviour, so that the metric falls when
it is taken away. It stands in every score's metadata, and scores that claim another are refused.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.models.stream import EdgeNames, StreamGraph
from interpose.search.selection import nodes, prune, ranking, top_n
from interpose.search.storage import Stored, read, write

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
        return _graph(self.units)

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, unit: str) -> float:
        """The score of one unit, by name. Raises SiteError or SearchError where there is no such unit."""
        if isinstance(self.units, EdgeNames):
            return float(self.values[self.units.number(unit)])
        if unit not in self.units:
            raise SearchError(f"There is no unit {unit!r} here. The units are {_sketch(self.units)}.")
        return float(self.values[self.units.index(unit)])

    def top(self, k: int = 10, *, absolute: bool = False) -> Top:
        """The k best units, which print as a table.

        Args:
            k: how many; all of them where there are fewer.
            absolute: rank by size; the score shown keeps its sign.
        """
        best = ranking(self.values, absolute=absolute)[: max(k, 0)].tolist()
        return Top(tuple(Ranked(i, self.units[int(unit)], float(self.values[unit])) for i, unit in enumerate(best, 1)))

    def circuit(self, n: int, *, absolute: bool = False, pruned: bool = True) -> "Circuit":
        """The n best units; where they are edges, what of them lies on a path from `input` to `logits`.

        Args:
            n: how many units to take, counted before pruning.
            absolute: take the largest scores, whatever their sign.
            pruned: drop edges that lead nowhere; units that are not edges have nothing to prune.

        Raises:
            SearchError: n is negative or more than there are.
        """
        mask = top_n(self.values, n, absolute=absolute)
        circuit = Circuit(mask, self.units, n, meta={**self.meta, "absolute": absolute})
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

    def __repr__(self) -> str:
        made = [str(self.meta[key]) for key in ("method", "task", "model") if key in self.meta]
        best = [f"best {row.unit} {row.score:+.4g}" for row in self.top(1)]
        return f"Scores({', '.join([_sketch(self.units), *made, *best])})"


@dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """A set of units.

    Attributes:
        mask: which units are in it.
        units: the names of all units, in or out, in the same order.
        n: how many were asked for, before pruning.
        pruned: whether edges that lead nowhere have been dropped.
        meta: the metadata of the scores it was cut from.
    """

    mask: Bool[Tensor, "units"]
    units: Sequence[str]
    n: int
    pruned: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.mask) != len(self.units):
            raise SearchError(f"The mask has {len(self.mask)} entries for {len(self.units)} units. Give one a unit.")
        object.__setattr__(self, "meta", dict(self.meta))

    @property
    def graph(self) -> StreamGraph:
        """The graph whose edges these are. Raises SearchError where the units are not edges."""
        return _graph(self.units)

    def __len__(self) -> int:
        """How many units are in it."""
        return int(self.mask.sum())

    def names(self) -> tuple[str, ...]:
        """The names of the units in it, whatever their kind."""
        return tuple(self.units[int(i)] for i in self.mask.nonzero().flatten().tolist())

    def edges(self) -> tuple[str, ...]:
        """The names of the edges in it. Raises SearchError where the units are not edges."""
        names = self.graph.edges
        return tuple(names[int(i)] for i in self.mask.nonzero().flatten().tolist())

    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes its edges join, from `input` to `logits`. Raises SearchError where not edges."""
        inside = nodes(self.mask, self.graph).tolist()
        return tuple(name for name, kept in zip(self.graph.nodes, inside, strict=True) if kept)

    def prune(self) -> "Circuit":
        """Without the edges that lie on no path from `input` to `logits`. Raises SearchError where not edges."""
        return replace(self, mask=prune(self.mask, self.graph), pruned=True)

    def intersect(self, other: "Circuit") -> "Circuit":
        """The units in both. Raises SearchError where the two are not about the same units."""
        same_units(self.units, other.units)
        both = self.mask & other.mask.to(self.mask.device)
        return Circuit(both, self.units, int(both.sum()), meta=self.meta)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to one safetensors file, whole or not at all, and return its path."""
        fields = {"n": self.n, "pruned": self.pruned}
        return write(path, "circuit", Stored(self.mask, self.units, self.meta, fields))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Circuit":
        """Read what `save` wrote. Raises SearchError where the file is missing, damaged or something else."""
        stored = read(path, "circuit")
        n, pruned = stored.fields.get("n"), stored.fields.get("pruned")
        if str(stored.tensor.dtype) != "torch.bool" or type(n) is not int or type(pruned) is not bool:
            raise SearchError(f"{os.fspath(path)} is damaged: it lacks a mask, its budget, or whether it was pruned.")
        return cls(stored.tensor, stored.units, n, pruned, stored.meta)

    def __repr__(self) -> str:
        state = "pruned" if self.pruned else "not pruned"
        return f"Circuit({len(self):,} of {_sketch(self.units)}, {self.n:,} asked for, {state})"


def same_units(first: Sequence[str], second: Sequence[str]) -> None:
    """Check that two sequences name the same units in the same order.

    Raises:
        SearchError: they do not; the message names the first difference.
    """
    if isinstance(first, EdgeNames) and isinstance(second, EdgeNames):
        if first.graph == second.graph:
            return
        difference = f"{first.graph} against {second.graph}"
    elif len(first) != len(second):
        difference = f"{_sketch(first)} against {_sketch(second)}"
    else:
        pairs = enumerate(zip(first, second, strict=True))
        found = next(((i, a, b) for i, (a, b) in pairs if a != b), None)
        if found is None:
            return
        difference = f"unit {found[0]} is {found[1]} in one and {found[2]} in the other"
    raise SearchError(f"These are not about the same units: {difference}. Score both with the same mediator and model.")


def _graph(units: Sequence[str]) -> StreamGraph:
    if not isinstance(units, EdgeNames):
        raise SearchError(f"Only edges have a graph; these units are {_sketch(units)}. Search with Edges() for one.")
    return units.graph


def _sketch(units: Sequence[str]) -> str:
    if isinstance(units, EdgeNames):
        return f"{len(units):,} edges"
    shown = ", ".join(units[i] for i in range(min(3, len(units))))
    return f"{len(units):,} units ({shown}{', ...' if len(units) > 3 else ''})"
