"""Who writes to the residual stream, and who reads what was written: the graph that edges live in.

The counting is that of the MIB circuit track (https://arxiv.org/abs/2504.13151): `input`, every head and every MLP
write to the stream; every head reads it three times (query, key, value), every MLP and the logits once. An edge runs
from a writer to every reader downstream of it, counted once over all positions. Pure integers and names: no torch.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import accumulate
from operator import index as as_int
from typing import Literal, NamedTuple, overload

from interpose.errors import SearchError, SiteError

Kind = Literal["q", "k", "v", "mlp", "logits"]


class Destination(NamedTuple):
    """One place that reads the stream.

    Attributes:
        name: as in the name of an edge: `a3.h2<q>`, `m5`, `logits`; `a3.kv1<k>` where keys and values are grouped.
        kind: what is read: `q`, `k`, `v`, `mlp` or `logits`.
        layer: the block it belongs to; for `logits` the number of layers.
        head: which head (or key/value head, where grouped); 0 for an MLP and for the logits.
        upstream: how many sources lie strictly upstream; they are the sources 0 to upstream - 1.
        nodes: the sources that read here: one head, all heads of a group, one MLP, or none for the logits.
    """

    name: str
    kind: Kind
    layer: int
    head: int
    upstream: int
    nodes: tuple[int, ...]


class EdgeGroup(NamedTuple):
    """The edges start <= i < stop, which are all that end in one kind of destination of one layer."""

    kind: Kind
    layer: int
    start: int
    stop: int


@dataclass(frozen=True)
class StreamGraph:
    """All sources, destinations and edges of a decoder with one residual stream.

    Sources are numbered input = 0, head h of layer l = 1 + l(H+1) + h, MLP of layer l = 1 + l(H+1) + H. Destinations
    are numbered layer by layer: queries, keys, values, then the MLP; the logits come last. Edges are numbered
    destination by destination, and by source within one.

    Attributes:
        layers: number of blocks.
        heads: number of query heads a block.
        parallel: attention and MLP read the same stream, so that the heads of a block do not feed its MLP.
        grouped: count the key and value edges once for each key/value head, not once for each query head (as MIB
            does).
        kv_heads: number of key/value heads a block; needed where grouped, dropped elsewhere.

    Raises:
        SearchError: a count below one, or `grouped` without a number of key/value heads that divides `heads`.
    """

    layers: int
    heads: int
    parallel: bool = False
    grouped: bool = False
    kv_heads: int | None = None

    def __post_init__(self) -> None:
        if self.layers < 1 or self.heads < 1:
            raise SearchError(
                f"A stream graph needs at least one layer and one head, but got {self.layers} layers and "
                f"{self.heads} heads."
            )
        kv_heads = self.kv_heads
        if self.grouped and (kv_heads is None or kv_heads < 1 or self.heads % kv_heads):
            raise SearchError(
                f"Grouped edges need the number of key/value heads, which divides the {self.heads} heads, but "
                f"kv_heads is {kv_heads}. Write StreamGraph(..., grouped=True, kv_heads=...)."
            )
        if not self.grouped:
            # Ungrouped edges do not depend on it, and equal graphs must compare equal.
            object.__setattr__(self, "kv_heads", None)

    @property
    def readers(self) -> int:
        """How many key (or value) destinations a layer has."""
        return self.kv_heads if self.grouped and self.kv_heads else self.heads

    @property
    def n_sources(self) -> int:
        """1 + L(H+1)."""
        return 1 + self.layers * (self.heads + 1)

    @property
    def n_destinations(self) -> int:
        """L(3H+1) + 1; where grouped, L(H + 2K + 1) + 1."""
        return self.layers * (self.heads + 2 * self.readers + 1) + 1

    @property
    def n_edges(self) -> int:
        """Number of edges, in closed form: no edge is listed to count them."""
        width = self.heads + 1
        # Sum over the layers l of 1 + l(H+1): what lies upstream of a block.
        before_blocks = self.layers + width * self.layers * (self.layers - 1) // 2
        into_heads_and_mlps = (self.heads + 2 * self.readers + 1) * before_blocks
        heads_to_own_mlp = 0 if self.parallel else self.layers * self.heads
        return into_heads_and_mlps + heads_to_own_mlp + self.n_sources

    def head(self, layer: int, head: int) -> int:
        """Source number of a head."""
        return 1 + layer * (self.heads + 1) + head

    def mlp(self, layer: int) -> int:
        """Source number of an MLP."""
        return 1 + layer * (self.heads + 1) + self.heads

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, in order: `input`, `a0.h0`, ..., `m0`, `a1.h0`, ..."""
        blocks = ((*(f"a{i}.h{h}" for h in range(self.heads)), f"m{i}") for i in range(self.layers))
        return ("input", *(name for block in blocks for name in block))

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes: the sources and `logits`."""
        return (*self.sources, "logits")

    @cached_property
    def inputs(self) -> tuple[Destination, ...]:
        """The destinations, in order."""
        blocks = (self._block(layer) for layer in range(self.layers))
        logits = Destination("logits", "logits", self.layers, 0, self.n_sources, ())
        return (*(place for block in blocks for place in block), logits)

    def _block(self, layer: int) -> Iterator[Destination]:
        before = self.head(layer, 0)
        for head in range(self.heads):
            yield Destination(f"a{layer}.h{head}<q>", "q", layer, head, before, (self.head(layer, head),))
        share = self.heads // self.readers
        label = "kv" if self.grouped else "h"
        kinds: tuple[Kind, Kind] = ("k", "v")
        for kind in kinds:
            for reader in range(self.readers):
                nodes = tuple(self.head(layer, head) for head in range(reader * share, (reader + 1) * share))
                yield Destination(f"a{layer}.{label}{reader}<{kind}>", kind, layer, reader, before, nodes)
        mlp = self.mlp(layer)
        yield Destination(f"m{layer}", "mlp", layer, 0, before if self.parallel else mlp, (mlp,))

    @cached_property
    def destinations(self) -> tuple[str, ...]:
        """Names of the destinations, in order."""
        return tuple(place.name for place in self.inputs)

    def upstream(self, destination: int) -> int:
        """How many sources lie strictly upstream of a destination; they are the first ones."""
        return self.inputs[destination].upstream

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Number of the first edge of each destination, and at the end the number of edges."""
        return tuple(accumulate((place.upstream for place in self.inputs), initial=0))

    def edge(self, number: int) -> tuple[int, int]:
        """The (source, destination) of an edge, as numbers.

        Raises:
            IndexError: there is no such edge.
        """
        if not 0 <= number < self.n_edges:
            raise IndexError(f"edge {number} of {self.n_edges}")
        destination = bisect_right(self.offsets, number) - 1
        return number - self.offsets[destination], destination

    def edge_number(self, source: int, destination: int) -> int:
        """The number of the edge from a source to a destination.

        Raises:
            SiteError: the source does not lie upstream of the destination.
        """
        if not 0 <= source < self.upstream(destination):
            raise SiteError(
                f"There is no edge {self.sources[source]}->{self.destinations[destination]}: a source must lie "
                "upstream of its destination."
            )
        return self.offsets[destination] + source

    @cached_property
    def edges(self) -> "EdgeNames":
        """The names of all edges, made when asked for."""
        return EdgeNames(self)

    @cached_property
    def groups(self) -> tuple[EdgeGroup, ...]:
        """The edges by kind and layer of their destination; each group is one run of edge numbers."""
        starts = [i for i, place in enumerate(self.inputs) if i == 0 or place[1:3] != self.inputs[i - 1][1:3]]
        stops = [*starts[1:], len(self.inputs)]
        return tuple(
            EdgeGroup(self.inputs[a].kind, self.inputs[a].layer, self.offsets[a], self.offsets[b])
            for a, b in zip(starts, stops, strict=True)
        )

    @cached_property
    def _source_numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.sources)}

    @cached_property
    def _destination_numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.destinations)}

    def source_number(self, name: str) -> int:
        """The number of a source. Raises SiteError, naming the nearest, where there is none of that name."""
        return _number(name, self._source_numbers, "source")

    def destination_number(self, name: str) -> int:
        """The number of a destination. Raises SiteError, naming the nearest, where there is none of that name."""
        return _number(name, self._destination_numbers, "destination")


@dataclass(frozen=True, repr=False)
class EdgeNames(Sequence[str]):
    """The names of a graph's edges in order, `input->a0.h0<q>` first; none is stored."""

    graph: StreamGraph

    def __len__(self) -> int:
        return self.graph.n_edges

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        number = as_int(index)
        source, destination = self.graph.edge(number + len(self) if number < 0 else number)
        return f"{self.graph.sources[source]}->{self.graph.destinations[destination]}"

    def __iter__(self) -> Iterator[str]:
        for place in self.graph.inputs:
            for source in self.graph.sources[: place.upstream]:
                yield f"{source}->{place.name}"

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, str):
            return False
        try:
            self.number(value)
        except SiteError:
            return False
        return True

    def number(self, name: str) -> int:
        """The number of the edge of this name, found without walking through the edges.

        Raises:
            SiteError: no edge has this name.
        """
        source, arrow, destination = name.partition("->")
        if not arrow:
            raise SiteError(f"{name!r} is not the name of an edge. Write it as 'a0.h1->m2' or 'a0.h1->a3.h2<q>'.")
        return self.graph.edge_number(self.graph.source_number(source), self.graph.destination_number(destination))

    def __repr__(self) -> str:
        return f"EdgeNames({len(self):,} edges, {self[0]} to {self[-1]})"


def _number(name: str, numbers: dict[str, int], what: str) -> int:
    if name in numbers:
        return numbers[name]
    near = ", ".join(get_close_matches(name, numbers, n=3, cutoff=0.5)) or ", ".join(list(numbers)[:3])
    raise SiteError(f"This model has no {what} {name!r}. The nearest are: {near}.")
