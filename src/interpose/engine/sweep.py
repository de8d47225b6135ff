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
from interpose.engine.making import Misfit
from interpose.engine.member import Member
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
        tokens: how many tokens go through the network at once, at most.
    """

    def __init__(
        self,
        stock: Stock,
        reach: Callable[[Graph], Reach | None],
        alone: Callable[[Graph, Feed], dict[str, Any]],
        tokens: int,
    ) -> None:
        """Run nothing yet."""
        self._stock, self._reach, self._alone, self._tokens = stock, reach, alone, tokens

    def run_many(self, graphs: Sequence[Graph], feeds: Sequence[Feed]) -> Iterator[dict[str, Any]]:
        """The saved values of each run, in order."""
        runs = (Run(number, *both) for number, both in enumerate(zip(graphs, feeds, strict=True)))
        while window := _window(runs):
            found = self._together(window) if len(window) > 1 else {}
            for number, graph, feed in window:
                if number not in found:
                    found[number] = self._alone(graph, feed)
                    count(1)
                yield found.pop(number)

    def _together(self, window: Sequence[Run]) -> dict[int, dict[str, Any]]:
        """The values of the runs that could share anything, by number."""
        alike: dict[Any, list[Sharing]] = defaultdict(list)
        known: dict[int, Prompts | None] = {}
        for run in window:
            reach = self._reach(run.graph)
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
            with torch.no_grad():
                return self._cones(runs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            warnings.warn(
                f"{len(runs)} runs could not share what they have in common ({error}); they run one by one, which "
                "gives the same. Please report this.",
                RuntimeWarning,
                stacklevel=4,
            )
            return {}

    def _cones(self, runs: Sequence[Sharing]) -> dict[int, dict[str, Any]]:
        bases = self._bases(runs)
        members = [
            Member(
                run.number, reach, run.feed, {name: bases[given.key] for name, given in prompts.items()}, self._stock
            )
            for run, reach, prompts in runs
        ]
        members = _settled(members)
        found = _finished([member for member in members if member.since is None], lambda: None)
        changed = [member for member in members if member.since is not None]
        for position, together in self._passes(bases[runs[0].prompts[runs[0].reach.world].key], changed):
            found |= _finished(together, Cone(self._stock, together[0].base, together, position).run)
        return found

    def _bases(self, runs: Sequence[Sharing]) -> dict[Any, Base]:
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
        return {key: Base(self._stock, one, sites[key], depths[key], key in resumed) for key, one in prompts.items()}

    def _passes(self, base: Base, members: Sequence[Member]) -> Iterator[tuple[int, list[Member]]]:
        """The runs by pass, each with the position at which it begins."""
        apart: dict[int, list[Member]] = defaultdict(list)
        for member in members:
            apart[member.start if member.start == EMBEDDING or not base.staggers else 0].append(member)
        for together in apart.values():
            for group in _by_position(together, base, self._stock.dims.layers):
                first = min(member.since or 0 for member in group)
                position = first if first >= base.prompts.padding else 0
                each = (base.prompts.length - position) * base.prompts.rows
                size = max(1, self._tokens // each)
                ordered = sorted(group, key=lambda member: member.start)
                for start in range(0, len(ordered), size):
                    yield position, ordered[start : start + size]


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


def _finished(members: Sequence[Member], run: Callable[[], None]) -> dict[int, dict[str, Any]]:
    """What runs save after a pass; nothing where one of them fails, which by itself says how."""
    try:
        run()
        found = finish(members)
    except Misfit:
        return {}
    count(len(found))
    return found


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
