"""Many runs at once: those that share an unchanged run begin where they differ from it, and go together.

What is repeated from run to run is left out: layers and positions before the first change, runs that change nothing,
ends of graphs that are alike. Runs that cannot share are run one by one, as they would be by themselves.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from interpose.engine.base import Base, Prompts, last_logits
from interpose.engine.cone import Cone
from interpose.engine.forecast import of_a_base, of_a_pass
from interpose.engine.making import Misfit
from interpose.engine.member import Member
from interpose.engine.memory import free, is_out_of_memory
from interpose.engine.reach import EMBEDDING, Reach, deeper
from interpose.engine.resumed import Stock
from interpose.engine.tail import finish
from interpose.graph.feed import Feed
from interpose.graph.nodes import Graph
from interpose.graph.progress import count
from interpose.graph.sites import Site

_WINDOW = 4096
"""How many runs at most are looked at together."""
_HELD = 2**28
"""Bytes of tensors given to runs that are looked at together, about."""
_TOKENS = 4096
"""How many tokens at most go through the network at once: more does not multiply faster."""
_PASS = 24
"""What a pass costs for each layer beside its tokens, counted in tokens."""


class Run(NamedTuple):
    """One run: its number, its graph and what it is given."""

    number: int
    graph: Graph
    feed: Feed


class Sharing(NamedTuple):
    """A run that may share an unchanged run: it, how far its changes reach, and the prompts of its worlds."""

    run: Run
    reach: Reach
    prompts: dict[str, Prompts]


@final
class Sweep:
    """Runs many graphs on one network.

    Args:
        stock: the network.
        reach: how far a graph's changes reach; None where it must be run by itself.
        alone: runs one graph by itself.
        memory: how many bytes may be held at once, about; None for half of what is free.
    """

    def __init__(
        self,
        stock: Stock,
        reach: Callable[[Graph], Reach | None],
        alone: Callable[[Graph, Feed], dict[str, Any]],
        memory: int | None,
    ) -> None:
        """Run nothing yet."""
        self._stock, self._reach, self._alone, self._memory = stock, reach, alone, memory
        self._failed: dict[int, str] = {}

    def run_many(self, graphs: Sequence[Graph], feeds: Sequence[Feed]) -> Iterator[dict[str, Any]]:
        """The saved values of each run, in order."""
        runs = (Run(number, *both) for number, both in enumerate(zip(graphs, feeds, strict=True)))
        while window := _window(runs):
            found = self._together(window) if len(window) > 1 else {}
            for number, graph, feed in window:
                if number not in found:
                    found[number] = self._alone(graph, feed)
                    count(1)
                    self._warn(number)
                yield found.pop(number)

    def _together(self, window: Sequence[Run]) -> dict[int, dict[str, Any]]:
        """The values of the runs that could share anything, by number."""
        alike: dict[Any, list[Sharing]] = defaultdict(list)
        known: dict[int, Prompts | None] = {}
        reaches: dict[int, Reach | None] = {}
        for run in window:
            if id(run.graph) not in reaches:
                reaches[id(run.graph)] = self._reach(run.graph)
            reach = reaches[id(run.graph)]
            prompts = {} if reach is None else {name: _prompts(run.feed, name, known) for name in reach.worlds}
            given = {name: found for name, found in prompts.items() if found is not None}
            if reach is not None and len(given) == len(prompts):
                alike[given[reach.world].key].append(Sharing(run, reach, given))
        found: dict[int, dict[str, Any]] = {}
        for runs in alike.values():
            if len(runs) > 1:
                found |= self._shared(runs)
        return found

    def _shared(self, runs: Sequence[Sharing]) -> dict[int, dict[str, Any]]:
        try:
            # Tensors of inference mode do not tell whether the network changed them.
            with torch.inference_mode(False), torch.no_grad():
                return self._cones(runs)
        except Exception as error:
            if not is_out_of_memory(error):  # one by one takes least
                self._failed |= dict.fromkeys([sharing.run.number for sharing in runs], str(error))
            return {}

    def _warn(self, number: int) -> None:
        """Say that runs failed together of which one, by itself, did not: where it fails too, it says so better."""
        why = self._failed.get(number)
        if why is None:
            return
        together = [other for other, reason in self._failed.items() if reason == why]
        self._failed = {other: reason for other, reason in self._failed.items() if reason != why}
        warnings.warn(
            f"{len(together)} runs could not share what they have in common ({why}); they run one by one, which gives "
            "the same. Please report this.",
            RuntimeWarning,
            stacklevel=4,
        )

    def _cones(self, runs: Sequence[Sharing]) -> dict[int, dict[str, Any]]:
        budget = free(self._stock.device) // 2 if self._memory is None else self._memory
        bases = self._bases(runs, budget)
        members = []
        for run, reach, prompts in runs:
            mine = {name: bases[given.key] for name, given in prompts.items()}
            members.append(Member(run.number, reach, run.feed, mine, self._stock))
        members = _settled(members)
        found = self._finished(0, [member for member in members if member.since is None], budget)
        changed = [member for member in members if member.since is not None]
        for position, together in self._passes(bases[runs[0].prompts[runs[0].reach.world].key], changed):
            found |= self._finished(position, together, budget)
        return found

    def _finished(self, position: int, members: Sequence[Member], budget: int) -> dict[int, dict[str, Any]]:
        """What runs save after a pass, or after several; nothing for those that by themselves say how they fail."""
        if not members:
            return {}
        alike = {id(member.reach): member for member in members}.values()
        each = max(of_a_pass(self._stock, one.base.prompts, position, one.read_on_the_way) for one in alike)
        size = max(1, min(budget // each, _TOKENS // members[0].tokens(position)))
        found: dict[int, dict[str, Any]] = {}
        for start in range(0, len(members), size):
            found |= self._pass(position, members[start : start + size])
        return found

    def _pass(self, position: int, members: Sequence[Member]) -> dict[int, dict[str, Any]]:
        try:
            if members[0].since is not None:
                Cone(self._stock, members[0].base, members, position).run()
            found = finish(members)
        except Misfit:
            return {}
        except Exception as error:
            if not is_out_of_memory(error) or len(members) == 1:
                raise
            half = len(members) // 2
            return self._pass(position, members[:half]) | self._pass(position, members[half:])
        count(len(found))
        return found

    def _bases(self, runs: Sequence[Sharing], budget: int) -> dict[Any, Base]:
        """The unchanged run of each of the prompts, with all that any run asks of it."""
        sites: dict[Any, dict[Site, int | None]] = defaultdict(dict)
        depths: dict[Any, int | None] = defaultdict(int)
        prompts, resumed = {}, set()
        for reach, given in {(id(run.reach), *(p.key for p in run.prompts.values())): run[1:] for run in runs}.values():
            for world, one in given.items():
                prompts[one.key] = one
                for site, depth in reach.sites(world).items():
                    sites[one.key][site] = deeper(sites[one.key].get(site, 0), depth)
                depths[one.key] = deeper(depths[one.key], last_logits(reach))
            if reach.steps:
                resumed.add(given[reach.world].key)
        kept = sum(of_a_base(self._stock, one, sites[key]) for key, one in prompts.items())
        if kept > budget:
            raise MemoryError(f"the unchanged run would keep about {kept:,} bytes, and {budget:,} may be held")
        return {key: Base(self._stock, one, sites[key], depths[key], key in resumed) for key, one in prompts.items()}

    def _passes(self, base: Base, members: Sequence[Member]) -> Iterator[tuple[int, list[Member]]]:
        """The runs by pass, each with the position at which it begins."""
        apart: dict[int, list[Member]] = defaultdict(list)
        for member in members:
            apart[member.start if member.start == EMBEDDING or not base.staggers else 0].append(member)
        for together in apart.values():
            for group in _by_position(together, base, self._stock.dims.layers):
                first = min(member.since or 0 for member in group)
                position = first if first >= base.prompts.padding and not base.looks_everywhere else 0
                yield position, sorted(group, key=lambda member: member.start)


def _window(runs: Iterator[Run]) -> list[Run]:
    """The next runs, as many as may be looked at together."""
    window: list[Run] = []
    held, known = 0, set[int]()
    for run in islice(runs, _WINDOW):
        window.append(run)
        for value in run.feed.tensors.values():
            if isinstance(value, Tensor) and id(value) not in known:
                known.add(id(value))
                held += value.nbytes
        if held > _HELD:
            break
    return window


def _prompts(feed: Feed, world: str, known: dict[int, Prompts | None]) -> Prompts | None:
    batch = feed.worlds.get(world)
    if batch is None:
        return None
    if id(batch) not in known:
        made = Prompts.of(batch)
        known[id(batch)] = None if isinstance(made, str) else made
    return known[id(batch)]


def _settled(members: Sequence[Member]) -> list[Member]:
    """Find where each run differs from the unchanged one; what values tell is asked of the device once."""
    asked = []
    for member in members:
        try:
            asked.append((member, member.differences()))
        except Misfit:
            continue
    flags = [flag for _, found in asked for _, flag in found]
    told = iter(torch.cat(flags).tolist() if flags else [])
    for member, found in asked:
        member.settle([(site, list(islice(told, len(flag)))) for site, flag in found])
    return [member for member, _ in asked]


def _by_position(members: Sequence[Member], base: Base, layers: int) -> list[list[Member]]:
    """Runs in groups that begin at one position, so that what is computed for nothing and the passes cost least."""
    by_position: dict[int, list[Member]] = defaultdict(list)
    for member in members:
        by_position[member.since or 0].append(member)
    positions = sorted(by_position)
    needed = [sum(layers - max(member.start, 0) for member in by_position[position]) for position in positions]
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(positions) + 1):
        options = []
        rows = 0
        for start in range(end - 1, max(-1, end - 65), -1):
            rows += needed[start]
            tokens = rows * (base.prompts.length - positions[start]) * base.prompts.rows
            options.append((best[start][0] + tokens + _PASS * layers, start))
        best.append(min(options))
    groups, end = [], len(positions)
    while end:
        start = best[end][1]
        groups.append([member for position in positions[start:end] for member in by_position[position]])
        end = start
    return groups[::-1]
