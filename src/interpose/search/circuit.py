"""A circuit: a set of units, usually edges. It can be stored, joined with others, compared, and run as a model."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.graph import markup
from interpose.models.stream import EdgeGroup, EdgeNames, StreamGraph
from interpose.search.ablation import keep_only, mean_written
from interpose.search.selection import nodes, prune
from interpose.search.storage import Stored, read, write
from interpose.search.units import graph_of, same_units, sketch
from interpose.trace import Model, Trace


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
        return graph_of(self.units)

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
        return self._with(self.mask & self._mask_of(other))

    def union(self, other: "Circuit") -> "Circuit":
        """The units in either. Raises SearchError where the two are not about the same units."""
        return self._with(self.mask | self._mask_of(other))

    def difference(self, other: "Circuit") -> "Circuit":
        """The units in this and not in the other. Raises SearchError where the two are not about the same units."""
        return self._with(self.mask & ~self._mask_of(other))

    def compare(self, other: "Circuit") -> "CircuitComparison":
        """What this and another circuit share, beside what circuits of their sizes would share by chance.

        Raises:
            SearchError: the two are not about the same units.
        """
        shared, chance = self.intersect(other), len(self) * len(other) / max(len(self.units), 1)
        return CircuitComparison(shared, self.difference(other), other.difference(self), chance)

    def keep(self, model: Model, means: Float[Tensor, "source width"] | None = None) -> None:
        """In a block, inside a world: only these edges carry anything; every other one carries zero.

        Args:
            model: the model whose block is open; its parts are written here, so nothing else may write them.
            means: what each source is taken to write where an edge is cut, from `mean`; by default nothing.

        Raises:
            SearchError: the units are not the edges of this model, or the means are of another shape.

        Example:
            ```python
            with model.trace(prompt):
                circuit.keep(model)
                logits = model.logits[:, -1].save()
            ```
        """
        keep_only(model, self.graph, self.mask, means)

    def program(self, model: Model, means: Float[Tensor, "source width"] | None = None) -> Trace:
        """The model as this circuit, as a block that has not run: its graph has one world, `main`, for any prompts.

        Args:
            model: the model.
            means: as for `keep`.

        Returns:
            the block; `.graph` is the graph and `.feed.tensors` holds what it needs besides the prompts.

        Raises:
            SearchError: as for `keep`.
        """
        with model.trace(torch.zeros(1, 2, dtype=torch.long), run=False) as t:
            self.keep(model, means)
        return t

    def mean(self, model: Model, prompts: Any, batch_size: int = 8) -> Float[Tensor, "source width"]:
        """What every source writes to the stream, averaged over all tokens of some prompts; for `keep`.

        Args:
            model: the model.
            prompts: what a block is opened with; a list of texts is run `batch_size` at a time.
            batch_size: prompts in one forward pass.

        Raises:
            SearchError: the units are not the edges of this model.
        """
        return mean_written(model, self.graph, prompts, batch_size)

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

    def _mask_of(self, other: "Circuit") -> Bool[Tensor, "units"]:
        same_units(self.units, other.units)
        return other.mask.to(self.mask.device)

    def _with(self, mask: Bool[Tensor, "units"]) -> "Circuit":
        return Circuit(mask, self.units, int(mask.sum()), meta=self.meta)

    def _repr_html_(self) -> str:
        if not isinstance(self.units, EdgeNames):
            names = [[name] for name in self.names()]
            more = [[f"and {len(names) - 20:,} more"]] if len(names) > 20 else []
            return markup.title(self) + markup.table(["unit"], names[:20] + more, left=[0])
        inside, edges = self.nodes(), _edges_by_end(self)
        heads, total = sum(".h" in name for name in inside), self.graph.layers * self.graph.heads
        mlps = sum(name.startswith("m") for name in inside)
        rows = [("heads", heads, total), ("MLPs", mlps, self.graph.layers)]
        for kind in ("q", "k", "v", "mlp", "logits"):
            ends = [edges[group] for group in edges if group.kind == kind]
            rows.append((f"edges into {kind}", sum(kept for kept, _ in ends), sum(all_ for _, all_ in ends)))
        counts = [(name, f"{kept:,}", f"{of:,}") for name, kept, of in rows]
        layers = Counter[int]()
        for group, (kept, _) in edges.items():
            layers[group.layer] += kept
        bars = [(f"layer {i}", float(layers[i])) for i in range(self.graph.layers)]
        table = markup.table(["", "kept", "of"], counts, left=[0])
        return markup.title(self) + table + markup.title("edges into each layer, from the first") + markup.bars(bars)

    def __repr__(self) -> str:
        state = "pruned" if self.pruned else "not pruned"
        return f"Circuit({len(self):,} of {sketch(self.units)}, {self.n:,} asked for, {state})"


@dataclass(frozen=True, eq=False, repr=False)
class CircuitComparison:
    """What two circuits share; prints as a small table.

    Attributes:
        shared: the units in both.
        only_first: the units in the first alone.
        only_second: the units in the second alone.
        chance: how many units two circuits of these sizes share on average if they are drawn by lot.
    """

    shared: Circuit
    only_first: Circuit
    only_second: Circuit
    chance: float

    @property
    def jaccard(self) -> float:
        """Shared units as a part of those in either; 1 where both are empty."""
        either = len(self.shared) + len(self.only_first) + len(self.only_second)
        return len(self.shared) / either if either else 1.0

    def __str__(self) -> str:
        return "\n".join([self._title(), *(f"{name:<20}{value:>10}" for name, value in self._rows())])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return markup.title(self._title()) + markup.table([], self._rows(), left=[0])

    def _title(self) -> str:
        return f"two circuits of {sketch(self.shared.units)}"

    def _rows(self) -> list[tuple[str, str]]:
        counts = {"shared": self.shared, "only in the first": self.only_first, "only in the second": self.only_second}
        rows = [(name, f"{len(circuit):,}") for name, circuit in counts.items()]
        return [*rows, ("shared by chance", f"{self.chance:,.1f}"), ("Jaccard", f"{self.jaccard:.3f}")]


def _edges_by_end(circuit: Circuit) -> dict[EdgeGroup, tuple[int, int]]:
    """For each kind of reader of each layer, how many edges into it are kept, and how many there are."""
    groups = circuit.graph.groups
    return {group: (int(circuit.mask[group.start : group.stop].sum()), group.stop - group.start) for group in groups}
