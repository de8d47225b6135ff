"""One run among those that share a pass: what it writes into its rows, and what it reads there."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor

from interpose.engine.base import Base, last_logits
from interpose.engine.differing import by_position, indexed
from interpose.engine.fitting import fitting, widened
from interpose.engine.making import Making, Misfit
from interpose.engine.needs import used_by
from interpose.engine.reach import Reach, first_layer, order_of, position_axis
from interpose.engine.resumed import Stock
from interpose.engine.structures import version_of
from interpose.graph.nodes import Read, Write
from interpose.graph.sites import Site


@final
class Member:
    """One run among several.

    Attributes:
        number: which of all runs.
        reach: how far its changes reach.
        given: gives the tensor of an input or constant by its name.
        bases: the unchanged run of each of its worlds.
        stock: the network.
        start: the first layer that it needs.
        steps: what it does at the sites that its pass reaches.
        since: the first position at which it may differ from the unchanged run; None where it does not differ.
        found: what it has read so far, by node, as its tail wants it.

    Args:
        number: which of all runs.
        reach: how far its changes reach.
        given: gives the tensor of an input or constant by its name.
        bases: the unchanged run of each of its worlds.
        stock: the network.
    """

    def __init__(
        self, number: int, reach: Reach, given: Callable[[str], Any], bases: Mapping[str, Base], stock: Stock
    ) -> None:
        """Find where it may differ from the unchanged run, as far as the graph tells."""
        self.number, self.given, self.reach, self.bases = number, given, reach, bases
        self.base = bases[reach.world]
        self.stock, self._layers = stock, stock.dims.layers
        self._seen: list[tuple[Tensor, int]] = []
        self.since: int | None = None
        self.start = 0
        self.steps = dict(reach.steps)
        self._entry: Site | None = None
        self.found: dict[int, Tensor] = {}
        self._from = 0

    # Where it differs.

    def differences(self) -> list[tuple[Site, Tensor]]:
        """For each site that is written with a value known before: where it differs from what was there.

        A tensor of truth values, by position.
        """
        making, found = self._making(), []
        for site, steps in self.reach.steps.items():
            if not all(write is None or index in self.reach.known for index, write in steps):
                continue
            told = [self._difference(making, site, index, write) for index, write in _lasting(steps)]
            known = [where for where in told if where is not None]
            if known and len(known) == len(told):
                found.append((site, torch.stack(known).any(0)))
        return found

    def settle(self, differences: list[tuple[Site, list[bool]]]) -> None:
        """Take note of where it differs, and begin there."""
        length, told = self.base.prompts.length, {site for site, _ in differences}
        positions, sites = [], []
        for index, raw in self.reach.since.items():
            node = self.reach.graph.nodes[index]
            assert isinstance(node, Write)
            if node.site in told:
                continue
            sites.append(node.site)
            starts = [_from_start(position, length) for position in (raw if raw is not None else (0,))]
            positions.append(min(starts, default=0))
        for site, where in differences:
            if any(where):
                sites.append(site)
                positions.append(where.index(True))
        if sites:
            self.since = min(positions)
            self._begin_at(min(sites, key=order_of))

    def _begin_at(self, site: Site) -> None:
        """Begin with the layer of a site, or, where it is a layer's output, with the next one."""
        self.start = min(first_layer(site), self._layers - 1)
        if site.layer is not None and site.local == "output" and site.layer + 1 < self._layers:
            self.start, self._entry = self.start + 1, site
        kept = {other: first_layer(other) >= self.start for other in self.reach.steps}
        self.steps = {other: steps for other, steps in self.reach.steps.items() if kept[other]}

    def entry(self, stream: Tensor) -> Tensor:
        """What this run's rows are when they join, given what the layer was given in the unchanged run."""
        return stream if self._entry is None else self.happen(self._entry, stream)

    @property
    def last_logits(self) -> int | None:
        """How many last positions of the logits it reads; None for all."""
        return last_logits(self.reach)

    def _difference(self, making: Making, site: Site, index: int, write: Write) -> Tensor | None:
        axis, before, rest = position_axis(site), self.base.sites[site], self.reach.rests[index]
        if axis is None:
            return None
        # What is no number reaches positions before it too: what hides those adds to it, or multiplies it by zero.
        odd = torch.isnan if site.local in ("attn.scores", "attn.pattern") else _is_infinite
        part = indexed(self.reach.graph.nodes[write.value.index])
        if part is not None:
            making.make(rest[:-1])
            old, new = before[part.where], part.fitting(making.get(part.value), before)
            if making.get(part.of) is before and new is not None:
                found = before.new_zeros(before.shape[axis], dtype=torch.bool)
                found[part.along(axis)] = by_position(new != old, axis)
                return found | odd(new).any()
        making.make(rest)
        after = fitting(site, making.get(write.value.index), before.dtype, before.shape)
        if after.shape[axis] != before.shape[axis]:
            return None
        return by_position(after != widened(before, after.shape), axis) | odd(after).any()

    def tokens(self, position: int) -> int:
        """How many tokens it takes through the network from a position on."""
        return (self.base.prompts.length - position) * self.base.prompts.rows

    @property
    def read_on_the_way(self) -> list[Site]:
        """The sites whose values it holds on to while its pass runs."""
        nodes = [self.reach.graph.nodes[index] for rest in self.reach.rests.values() for index in rest[:-1]]
        return list({node.site for node in nodes if isinstance(node, Read)})

    # What happens in the pass.

    def begin(self, position: int) -> None:
        """A pass begins, whose rows are the positions from one on."""
        self._from, self.found, self._seen = position, {}, []
        self._values = self._making(self._uses())
        for site, steps in self.reach.steps.items():
            if site not in self.steps and site != self._entry:
                # Nothing differs there yet, whatever is written.
                self._values.known |= {index: self.base.sites[site] for index, write in steps if write is None}

    def happen(self, site: Site, value: Tensor) -> Tensor:
        """What happens at a site.

        Args:
            site: the site.
            value: what is there in this run's rows, for the positions of the pass.

        Returns:
            what goes on in its place; the same object where nothing is written.
        """
        for index, write in self.reach.steps.get(site, ()):
            if write is None:
                self._read(index, site, value)
            else:
                value = self._written(site, index, write, value)
        return value

    def wanted(self) -> dict[int, Tensor]:
        """All that the tail wants: what was read in the pass, or in the unchanged runs."""
        if any(version_of(value) != version for value, version in self._seen):
            raise Misfit("the network changes tensors in place")
        nodes, found = self.reach.graph.nodes, {}
        for index in self.reach.tail.reads:
            read = nodes[index]
            assert isinstance(read, Read)
            found[index] = self.found[index] if index in self.found else self.bases[read.world].sites[read.site]
        return found

    def _read(self, index: int, site: Site, value: Tensor) -> None:
        value = value.clone() if self.base.in_place else value
        self._seen.append((value, version_of(value)))
        depth, axis = self.reach.depth.get(index), position_axis(site)
        if axis is not None and (depth is None or depth > value.shape[axis]):
            value = self._whole(site, value, axis)
        if index in self.reach.tail.reads:
            self.found[index] = value
        self._values.known[index] = value

    def _written(self, site: Site, index: int, write: Write, value: Tensor) -> Tensor:
        self._values.make(self.reach.rests[index])
        made = self._values.get(write.value.index)
        self._values.drop(index)
        axis, shape = position_axis(site), list(value.shape)
        narrow = axis is not None and self._from and shape[axis] != self.base.prompts.length
        if narrow and axis is not None:
            shape[axis] = self.base.prompts.length
        made = fitting(site, made, value.dtype, torch.Size(shape))
        return made.narrow(axis, self._from, shape[axis] - self._from) if narrow and axis is not None else made

    def _whole(self, site: Site, value: Tensor, axis: int) -> Tensor:
        """A value behind what is kept of the unchanged run for the positions before it, which may be some last ones."""
        kept = self.base.sites[site]
        if value.shape[axis] >= kept.shape[axis]:
            return value
        before = kept.narrow(axis, 0, kept.shape[axis] - value.shape[axis])
        if before.shape[1:axis] != value.shape[1:axis] or before.shape[axis + 1 :] != value.shape[axis + 1 :]:
            raise Misfit("a value changed its shape")
        return torch.cat([before, value], axis)

    # How values are made.

    def _making(self, left: Counter[int] | None = None) -> Making:
        known: dict[int, Any] = {}
        for world, indices in self.reach.unreached.items():
            for index in indices:
                node = self.reach.graph.nodes[index]
                assert isinstance(node, Read)
                known[index] = self.bases[world].sites[node.site]
        return Making(self.reach, self.given, self.stock, known, left)

    def _uses(self) -> Counter[int]:
        """How often each node is used on the way to a write."""
        heads = {index for rest in self.reach.rests.values() for index in rest} | set(self.reach.rests)
        nodes = self.reach.graph.nodes
        return Counter(used for index in heads for used in used_by(nodes[index]))


def _is_infinite(value: Tensor) -> Tensor:
    return ~value.isfinite()


def _from_start(position: int, length: int) -> int:
    """A position counted from the start; an index behind the end writes nothing, which costs a position at most."""
    return max(0, position + length if position < 0 else min(position, length - 1))


def _lasting(steps: tuple[tuple[int, Write | None], ...]) -> list[tuple[int, Write]]:
    """The writes of a site that something reads, there or later in the pass: those that no other follows at once."""
    return [
        (index, write)
        for (index, write), (_, after) in zip(steps, [*steps[1:], (0, None)], strict=True)
        if write is not None and after is None
    ]
