"""One pass for several runs that differ from one unchanged run."""

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor

from interpose.engine.base import Base
from interpose.engine.fitting import widened
from interpose.engine.member import Member
from interpose.engine.reach import EMBEDDING
from interpose.engine.resumed import Stock, plan_of, repeated, run
from interpose.engine.shared_prefix import WORTHWHILE, attend
from interpose.engine.world_plan import WorldPlan
from interpose.graph.sites import Site


@final
class Cone:
    """One pass for several runs: their rows join where their changes begin, all from one position on.

    Attributes:
        whole: the pass ends behind the last site.
        kernels: what stands in for attention kernels, by the path of the module.

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
        self.whole, self.kernels = False, dict[str, Callable[..., Any]]()
        self._lent: list[list[Tensor]] = []
        self._staggered = base.staggers and first != EMBEDDING
        assert self._staggered or first == last
        self._rows, self._each = 0, base.prompts.rows

    def run(self) -> None:
        """Run it; what each run reads is then found in it."""
        for member in self._members:
            member.begin(self._position)
        if not self._staggered:
            self._rows = self._each * len(self._members)
        plan = plan_of(self._stock, self._sites())
        kwargs = self._base.prompts.behind(self._position, 1 if self._staggered else len(self._members))
        if self._position:
            kwargs |= {"use_cache": True, "past_key_values": self._prefix(plan)}
        try:
            run(self._stock, plan, self._happens, self, {**kwargs, **self._logits()})
        finally:
            for before in self._lent:
                before.clear()

    def _prefix(self, plan: WorldPlan) -> Any:
        """The cache of the positions before; long ones are left to kernels that need no copy of them for every row."""
        before = [(keys[:, :, : self._position], values[:, :, : self._position]) for keys, values in self._base.keys]
        tapped = {module for module, side in plan.taps if side == "attention"}
        apart = set()
        for layer in range(max(self._first, 0), len(before)) if self._position >= WORTHWHILE else ():
            path = self._stock.attention_of(layer)
            if path is not None and path not in tapped:
                self._lent.append(list(before[layer]))
                self.kernels[path] = attend(self._lent[-1], self._base.prompts.padding == 0)
                apart.add(layer)
        return self._stock.attention.prefixed(before, apart)

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
        if any(after.shape != parts[0].shape for _, after in changed):
            wide = max((after for _, after in changed), key=lambda after: after.numel()).shape
            new = dict(changed)
            return torch.cat([widened(new.get(number, part), wide) for number, part in enumerate(parts)])
        if len(changed) == len(parts):
            return torch.cat([after for _, after in changed])
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
        entries = [member.entry(stream) for member in joining]
        if not self._staggered:
            return torch.cat(entries)
        before = [hidden] if self._rows else []
        self._rows += self._each * len(joining)
        return torch.cat([*before, *entries])

    def beside(self, layer: int, values: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG002
        """What else a layer is given, for its rows."""
        return tuple([repeated(value, self._each, self._rows) for value in values]) if self._staggered else values
