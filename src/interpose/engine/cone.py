"""Runs that differ from one unchanged run, in as few passes as their rows and positions allow."""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from interpose.engine.base import Base
from interpose.engine.fitting import widened
from interpose.engine.member import Member
from interpose.engine.reach import EMBEDDING
from interpose.engine.resumed import Stock, plan_of, repeated, run
from interpose.graph.sites import Site


@final
class Cone:
    """One pass for several runs: their rows join where their changes begin, all from one position on.

    Args:
        stock: the network.
        base: the unchanged run.
        members: the runs that differ from it.
        position: the first position of the pass.
    """

    def __init__(self, stock: Stock, base: Base, members: Sequence[Member], position: int) -> None:
        """Put the runs in the order in which they join."""
        self._stock, self._base, self._position = stock, base, position
        self._members = sorted(members, key=lambda member: member.start)
        first, last = self._members[0].start, self._members[-1].start
        self._first = first
        self._staggered = base.staggers and first != EMBEDDING
        assert self._staggered or first == last
        self._rows, self._each = 0, base.prompts.rows

    def run(self) -> None:
        """Run it; what each run reads is then found in it."""
        for member in self._members:
            member.begin(self._position)
        if not self._staggered:
            self._rows = self._each * len(self._members)
        kwargs = self._base.prompts.behind(self._position, 1 if self._staggered else len(self._members))
        if self._position:
            kwargs |= {"use_cache": True, "past_key_values": self._prefix()}
        run(self._stock, plan_of(self._stock, self._sites()), self._happens, self, {**kwargs, **self._logits()})

    def _prefix(self) -> Any:
        return self._stock.attention.prefixed(self._base.keys, self._position)

    def _sites(self) -> dict[Site, bool]:
        found: dict[Site, bool] = {}
        for member in self._members:
            for site, steps in member.steps.items():
                written = any(write is not None for _, write in steps)
                found[site] = found.get(site, False) or written
        return found

    def _logits(self) -> dict[str, int]:
        depths = [member.last_logits for member in self._members]
        return self._stock.last_logits(None if None in depths else max([1, *[depth or 1 for depth in depths]]))

    def _happens(self, site: Site, value: Tensor) -> Tensor:
        changed: list[tuple[int, Tensor]] = []
        parts = value.split(self._each)
        for number, part in enumerate(parts):
            member = self._members[number]
            if site in member.steps:
                after = member.happen(site, part)
                if after is not part:
                    changed.append((number, after))
        if not changed:
            return value
        shape = changed[0][1].shape
        if any(after.shape != parts[0].shape for _, after in changed):
            wide = max((after for _, after in changed), key=lambda after: after.numel()).shape
            new = dict(changed)
            return torch.cat([widened(new.get(number, part), wide) for number, part in enumerate(parts)])
        if len(changed) == len(parts):
            return torch.cat([after.expand(shape) for _, after in changed])
        result = value.clone()
        for number, after in changed:
            result[number * self._each : (number + 1) * self._each] = after
        return result

    # What the layers are given.

    def at(self, layer: int, hidden: Tensor) -> Tensor | None:
        """The rows of a layer; see `interpose.engine.resumed.Joining`."""
        if layer < self._first:
            return None
        joining = [member for member in self._members if member.start == layer]
        if not joining:
            return hidden
        stream = self._base.streams[layer][:, self._position :]
        entries = [member.entry(layer, stream) for member in joining]
        if not self._staggered:
            return torch.cat(entries)
        before = [hidden] if self._rows else []
        self._rows += self._each * len(joining)
        return torch.cat([*before, *entries])

    def beside(self, layer: int, values: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG002
        """What else a layer is given, for its rows."""
        return tuple([repeated(value, self._each, self._rows) for value in values]) if self._staggered else values
