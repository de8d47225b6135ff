"""How a mask reaches the model: each unit carries m times one value plus (1 - m) times another.

    patch(h) = m a + (1 - m) b        a and b: the unit's own value, its value on the corrupt prompts, 0, 2 h, ...

A `Mixing` knows the units: places (a site, a head, a neuron, a position) or edges. It says what the corrupt prompts
have to be asked for, and writes the mixture in the run of the clean prompts. Other kinds of unit, such as directions
of a site, are another class of this form.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpose.errors import SearchError
from interpose.mediators.base import Unit, sites_of
from interpose.mediators.edges import Edges, all_written, cut_edges, table_of
from interpose.models.stream import StreamGraph
from interpose.search.behaviour import first_difference
from interpose.search.selection import prune
from interpose.tasks.base import Pairs
from interpose.trace import Model

_OWNER = "owner."
"""What stands in front of a site's name where it is said which unit each of its places belongs to."""


@final
@dataclass(frozen=True)
class Value:
    """What a unit carries at one end of its mask: so much of its own value, and so much of the corrupt one.

    Attributes:
        own: how often its own value, in the masked run itself.
        source: how often its value on the corrupt prompt.
    """

    own: float = 0.0
    source: float = 0.0


BASE = Value(own=1.0)
"""The unit's own value: it is left as it is."""
SOURCE = Value(source=1.0)
"""What the unit carries on the corrupt prompt."""
ZERO = Value()
"""Nothing."""
DOUBLE = Value(own=2.0)
"""Twice its own value."""


@final
@dataclass(frozen=True)
class Mix:
    """The two values between which a mask chooses.

    Attributes:
        one: what a unit carries where its mask is 1.
        zero: what it carries where its mask is 0.
    """

    one: Value = BASE
    zero: Value = SOURCE

    def own(self, mask: Any) -> Any:
        """How often its own value each unit carries."""
        return self.zero.own + mask * (self.one.own - self.zero.own)

    def source(self, mask: Any) -> Any:
        """How often its corrupt value each unit carries."""
        return self.zero.source + mask * (self.one.source - self.zero.source)

    @property
    def needs_source(self) -> bool:
        """Whether the corrupt prompts have to be run."""
        return self.one.source != 0 or self.zero.source != 0

    @property
    def is_between_runs(self) -> bool:
        """Whether own and corrupt value always add up to one, so that where they are equal nothing changes."""
        return self.one.own + self.one.source == 1 == self.zero.own + self.zero.source


class Mixing(ABC):
    """Units of a model, and how a mask over them is written in a block.

    Attributes:
        count: how many units there are.
        axis: which axis of the corrupt values is the pairs'.
        layout: what differs from pair to pair of where units lie, by name, one row a pair; empty where nothing does.
    """

    count: int
    axis: int
    layout: Mapping[str, Tensor]

    @abstractmethod
    def sources(self) -> dict[str, Any]:
        """In a block, inside the world of the corrupt prompts: what has to be kept, by name; empty for nothing."""

    @abstractmethod
    def write(self, mask: Any, sources: Mapping[str, Any]) -> None:
        """In a block, inside the world of the clean prompts: write the mixture.

        Args:
            mask: one number a unit [unit], or one a pair and unit [pair, unit].
            sources: what `sources` kept, and `layout`, for the pairs of the run.
        """

    @abstractmethod
    def alive(self, mask: Float[Tensor, "*pairs units"]) -> Float[Tensor, "*pairs units"] | None:
        """Which units can matter under a mask: 1 or 0; None where each can."""


@final
class PlaceMixing(Mixing):
    """Units that are places.

    Args:
        model: the model.
        pairs: the pairs that will be run, all of one padded length.
        units: the units; no two may overlap.
        mix: the two values.

    Raises:
        SearchError: two units overlap, or no pair differs where corrupt values are needed.
    """

    axis = 0

    def __init__(self, model: Model, pairs: Pairs, units: Sequence[Unit], mix: Mix) -> None:
        """Find out which unit each place belongs to."""
        self._model, self._mix, self.count = model, mix, len(units)
        # Where both values are the same, before the first difference, nothing has to be kept or written.
        self._sites = sites_of(units)
        along = all((site.axes or ())[1:2] == ("P",) for site in self._sites)
        self._first = first_difference(pairs) if mix.is_between_runs and along else None
        self._owner: dict[str, Tensor] = {}
        by_site: dict[str, list[tuple[int, Unit]]] = {site.name: [] for site in self._sites}
        for number, unit in enumerate(units):
            by_site[unit.site.name].append((number, unit))
        layout: dict[str, Tensor] = {}
        for name, inside in by_site.items():
            owners = self._owners(inside, pairs)
            if any(unit.role is not None for _, unit in inside):
                layout[f"{_OWNER}{name}"] = owners
            else:
                self._owner[name] = owners[0]
        self.layout: Mapping[str, Tensor] = layout

    def _owners(self, units: list[tuple[int, Unit]], pairs: Pairs) -> Int[Tensor, "pairs ..."]:
        """The number of the unit that each place of a site belongs to, or how many units there are where none.

        One row for all pairs, or, where units lie elsewhere in each, one a pair.
        """
        dims, axes = self._model.sizes(), units[0][1].site.axes or ()
        used = {"B": any(unit.role is not None for _, unit in units), "P": not all(unit.whole for _, unit in units)}
        used["H"] = used["K"] = any(unit.head is not None for _, unit in units)
        used["F"] = any(unit.neuron is not None for _, unit in units)
        sizes = {"B": len(pairs), "P": pairs.clean_tokens.shape[1]}
        sizes |= {"H": dims.heads, "K": dims.kv_heads, "F": dims.neurons}
        owners = torch.full([sizes[axis] if used.get(axis) else 1 for axis in axes], self.count)
        for number, unit in units:
            index = tuple(part.cpu() if isinstance(part, Tensor) else part for part in unit.index(pairs))
            if bool((owners[index] != self.count).any()):
                raise SearchError(
                    f"{unit.name} overlaps with another unit at {unit.site}, so one mask cannot hold both. "
                    "Search over units that are apart."
                )
            owners[index] = number
        return owners[:, self._first :] if self._first is not None and used["P"] else owners

    def sources(self) -> dict[str, Any]:
        """The sites of the units."""
        if not self._mix.needs_source:
            return {}
        return {site.name: self._model.site(site.name)[:, self._first :] for site in self._sites}

    def write(self, mask: Any, sources: Mapping[str, Any]) -> None:
        """See `Mixing.write`; what belongs to no unit stays as it is."""
        one = torch.ones_like(mask[..., :1])
        own = torch.cat([self._mix.own(mask), one], -1)
        source = torch.cat([self._mix.source(mask), 0 * one], -1)
        for site in self._sites:
            here = self._model.site(site.name)
            value = here[:, self._first :] if self._first is not None else here
            each = sources.get(f"{_OWNER}{site.name}")
            mixed = value * self._laid(own, site.name, each)
            if self._mix.needs_source:
                mixed = mixed + sources[site.name] * self._laid(source, site.name, each)
            here[:, self._first :] = mixed

    def _laid(self, share: Any, site: str, each: Any) -> Any:
        """One number a unit, laid out as the site's axes [pair or 1, ...].

        Args:
            share: one number a unit [unit], or one a pair and unit [pair, unit].
            site: the site.
            each: which unit each place belongs to, where that differs from pair to pair [pair, ...]; else None.
        """
        if each is not None and len(share.shape) == 2:
            return share.gather(-1, each.flatten(1)).reshape(each.shape)
        owner = self._owner[site] if each is None else each
        return share.index_select(-1, owner.flatten()).reshape(*share.shape[:-1], *owner.shape)

    def alive(self, mask: Float[Tensor, "*pairs units"]) -> None:  # noqa: ARG002
        """Each unit can matter."""


@final
class EdgeMixing(Mixing):
    """Edges of the residual stream.

    Args:
        model: the model.
        pairs: the pairs that will be run.
        edges: how edges are counted.
        mix: the two values.
        pruned: whether edges that lie on no open path from `input` to `logits` are closed.

    Raises:
        SearchError: the two values cannot be had on edges, or no pair differs where corrupt values are needed.
    """

    axis = 1
    layout: Mapping[str, Tensor] = MappingProxyType({})

    def __init__(self, model: Model, pairs: Pairs, edges: Edges, mix: Mix, pruned: bool = False) -> None:
        """Lay out the table of edges."""
        self._model, self._mix, self._pruned = model, mix, pruned
        self.graph: StreamGraph = edges.graph(model)
        self.count = self.graph.n_edges
        if mix.needs_source and not mix.is_between_runs:
            raise SearchError(
                f"Edges cannot carry {mix.one} and {mix.zero}: what an edge carries is mixed with corrupt values, as "
                "Mix(BASE, SOURCE), or is its own value some times over, as Mix(BASE, ZERO). Write one of these."
            )
        self._first = first_difference(pairs) if mix.needs_source else None
        table = table_of(torch.arange(1.0, self.count + 1, dtype=torch.float64), self.graph).long()
        # Where there is no edge stands the number after the last, for which nothing is cut.
        self._owner = torch.where(table == 0, self.count, table - 1)

    def sources(self) -> dict[str, Any]:
        """What every source writes."""
        return {"written": all_written(self._model, self._first)} if self._mix.needs_source else {}

    def write(self, mask: Any, sources: Mapping[str, Any]) -> None:
        """See `Mixing.write`."""
        cut = self._mix.source(mask) if self._mix.needs_source else 1 - self._mix.own(mask)
        cut = torch.cat([cut, torch.zeros_like(cut[..., :1])], -1)
        laid = cut.index_select(-1, self._owner.flatten()).reshape(*cut.shape[:-1], *self._owner.shape)
        if len(cut.shape) == 2:
            laid = laid.permute(1, 2, 0)  # the pairs come last, as they do behind a source
        width = self._model.sizes().width
        none = torch.zeros(self.graph.n_sources, 1, 1, width, dtype=self._model.dtype, device=self._model.device)
        cut_edges(self._model, self.graph, sources.get("written", none), laid, self._first)

    def alive(self, mask: Float[Tensor, "*pairs units"]) -> Float[Tensor, "*pairs units"] | None:
        """1 for edges on some path of open edges from `input` to `logits`, if edges are pruned."""
        if not self._pruned:
            return None
        rows: Bool[Tensor, "rows units"] = mask.reshape(-1, self.count) > 0
        return torch.stack([prune(row, self.graph) for row in rows]).reshape(mask.shape).to(mask.dtype)
