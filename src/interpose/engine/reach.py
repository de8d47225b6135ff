"""How far the changes of a graph reach: from which layer and position on a run differs from the unchanged one.

In a causal network a value before the first change, by layer or by position, is what it would be without any. All
this is told from the graph alone; `interpose.engine.sweep` adds what the values tell.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from interpose.engine.needs import ancestors, needed_nodes, used_by
from interpose.engine.ops import evaluator
from interpose.graph.arguments import Ref, Slice
from interpose.graph.nodes import (
    Apply,
    Gradient,
    Graph,
    Log,
    Node,
    Op,
    Read,
    Save,
    Skip,
    Stop,
    Write,
)
from interpose.graph.sites import NEW_TOKENS, Site

_STAGES = (
    ("input",),
    ("attn.input",),
    ("attn.q", "attn.k", "attn.v"),
    ("attn.query", "attn.key", "attn.value"),
    ("attn.scores",),
    ("attn.pattern",),
    ("attn.z",),
    ("attn.result",),
    ("attn.output",),
    ("mid",),
    ("mlp.input",),
    ("mlp.neurons",),
    ("mlp.output",),
    ("output",),
)
"""The sites of a layer in the order in which they are reached; those of one stage do not change each other."""
_STAGE = {name: number for number, names in enumerate(_STAGES) for name in names}
_LAST = 10**9
EMBEDDING = -1
"""The first layer that must run where the token embedding is changed."""
_RANDOM = frozenset(["dropout", "empty_like", "rand_like", "randn_like"])


@dataclass(frozen=True)
class Tail:
    """What is made of what was read: everything that is saved, and all that it rests on.

    Attributes:
        reads: the nodes whose values are given, in order.
        nodes: the nodes that are made of them, in order; the saves are among them.
        key: equal for graphs that make the same of what they read.
    """

    reads: tuple[int, ...]
    nodes: tuple[int, ...]
    key: Any


@dataclass(frozen=True)
class Reach:
    """How far the changes of one graph reach.

    Attributes:
        graph: the graph.
        world: the world that is changed, or, where none is, the last.
        evaluators: for each node, how it is made.
        rests: for each write, the nodes that its value is made of, in order.
        known: the writes whose value rests on nothing that a write reaches.
        since: for each write, where its value may differ from what was at the site: positions of the site, the
            least of which counts; None for everywhere.
        steps: for each site where something is written, or read that a write reaches: its reads and writes in order.
        unreached: for each world, the reads that no write reaches.
        depth: for reads of which only some last positions are used, how many.
        tail: what is made of what was read.
    """

    graph: Graph
    world: str
    evaluators: dict[int, Callable[[Any], Any] | None]
    rests: dict[int, tuple[int, ...]]
    known: frozenset[int]
    since: dict[int, tuple[int, ...] | None]
    steps: dict[Site, tuple[tuple[int, Write | None], ...]]
    unreached: dict[str, tuple[int, ...]]
    depth: dict[int, int]
    tail: Tail

    @property
    def written(self) -> tuple[Site, ...]:
        """The sites that are written."""
        return tuple(site for site, steps in self.steps.items() if any(write is not None for _, write in steps))

    @property
    def worlds(self) -> tuple[str, ...]:
        """The worlds that run."""
        return tuple(dict.fromkeys([*self.unreached, self.world]))

    def sites(self, world: str) -> dict[Site, int | None]:
        """The sites of a world that matter, with how many last positions of them do; None for all."""
        found: dict[Site, int | None] = {}
        reached = [(i, None if i in self.known else 0) for steps in self.steps.values() for i, _ in steps]
        for index, depth in [(i, 0) for i in self.unreached.get(world, ())] + (reached if world == self.world else []):
            node = self.graph.nodes[index]
            assert isinstance(node, Read | Write)
            if isinstance(node, Read):
                depth = self.depth.get(index)
            found[node.site] = deeper(found.get(node.site, 0), depth)
        return found


class Unreachable(Exception):
    """Why a graph cannot be run from where its changes begin."""


def deeper(one: int | None, other: int | None) -> int | None:
    """How many last positions are enough for both; None stands for all."""
    return None if one is None or other is None else max(one, other)


def order_of(site: Site) -> int:
    """When a site is reached in a pass: what is changed at one site changes nothing at a lesser one."""
    if site.layer is None:
        return EMBEDDING if site.name == "embed" else _LAST + (site.name == "logits")
    return site.layer * len(_STAGES) + _STAGE[site.local]


def first_layer(site: Site) -> int:
    """The first layer that a change at a site reaches; `EMBEDDING` for what comes before all."""
    if site.name == "embed":
        return EMBEDDING
    return _LAST if site.layer is None else site.layer


def reach_of(graph: Graph) -> Reach:
    """How far the changes of a graph reach.

    Args:
        graph: the graph.

    Returns:
        what is known of it before it is given anything.

    Raises:
        Unreachable: it cannot be told, or the run must be whole for another reason.
    """
    depends = [used_by(node) for node in graph.nodes]
    here = sorted(needed_nodes(graph, depends))
    _refuse(graph, here)
    world = _changed(graph, here)
    writes = {i: node for i in here if isinstance(node := graph.nodes[i], Write)}
    reads = {i: node for i in here if isinstance(node := graph.nodes[i], Read)}
    reached = {i for i, node in reads.items() if node.world == world and _is_reached(i, node, writes)}
    rests = {i: tuple(sorted(ancestors([node.value.index], depends))) for i, node in writes.items()}
    known = frozenset(i for i in writes if reached.isdisjoint(rests[i]))
    evaluators = {i: evaluator(graph.nodes[i]) for i in here}
    steps: dict[Site, list[tuple[int, Write | None]]] = {writes[i].site: [] for i in writes}
    for index in sorted([*writes, *reached]):
        node = writes.get(index) or reads[index]
        steps.setdefault(node.site, []).append((index, writes.get(index)))
    unreached: dict[str, list[int]] = {}
    for index, node in reads.items():
        if index not in reached:
            unreached.setdefault(node.world, []).append(index)
    return Reach(
        graph=graph,
        world=world,
        evaluators=evaluators,
        rests=rests,
        known=known,
        since={i: _since(graph, node.value.index, node) for i, node in writes.items()},
        steps={site: tuple(found) for site, found in steps.items()},
        unreached={name: tuple(found) for name, found in unreached.items()},
        depth=_depths(graph, here, reads),
        tail=_tail(graph, here, depends),
    )


def _refuse(graph: Graph, here: list[int]) -> None:
    for index in here:
        node = graph.nodes[index]
        if isinstance(node, Gradient | Skip | Stop | Log | Apply):
            raise Unreachable(f"{node.at}: a {type(node).__name__.lower()} needs the whole run")
        if isinstance(node, Read | Write) and (node.site.part or node.site.in_encoder or node.site.name == NEW_TOKENS):
            raise Unreachable(f"{node.at}: it is not known when {node.site} is reached")
        if getattr(node, "steps", None) is not None:
            raise Unreachable(f"{node.at}: a generation runs step by step")
        if isinstance(node, Op) and node.name in _RANDOM:
            raise Unreachable(f"{node.at}: {node.name} draws random numbers")


def _changed(graph: Graph, here: list[int]) -> str:
    changed = list(dict.fromkeys(node.world for i in here if isinstance(node := graph.nodes[i], Write)))
    if len(changed) > 1:
        raise Unreachable(f"{len(changed)} worlds are changed: {', '.join(changed)}")
    named = {node.world for i in here if isinstance(node := graph.nodes[i], Read)}
    if not changed and not named:
        raise Unreachable("nothing is read")
    return changed[0] if changed else [world.name for world in graph.worlds if world.name in named][-1]


def _is_reached(index: int, read: Read, writes: dict[int, Write]) -> bool:
    mine = order_of(read.site)
    return any(
        order_of(write.site) < mine or (write.site == read.site and number < index) for number, write in writes.items()
    )


def position_axis(site: Site) -> int | None:
    """Which axis of a site counts positions, queries before keys; None where none does."""
    axes = site.axes or ()
    return axes.index("P") if "P" in axes else None


def _at_positions(index: Any, axis: int) -> Any:
    """What an index says of one axis: a number, a slice, or None where it cannot be told."""
    parts = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(part, int | Slice) and not isinstance(part, bool) for part in parts[: axis + 1]):
        return None
    return parts[axis] if axis < len(parts) else Slice()


def _since(graph: Graph, index: int, write: Write) -> tuple[int, ...] | None:
    """Positions from which a value may differ from what was at the write's site; None for everywhere."""
    axis, node = position_axis(write.site), graph.nodes[index]
    if isinstance(node, Read):
        return () if (node.site, node.world) == (write.site, write.world) else None
    if axis is None or not isinstance(node, Op) or node.kwargs:
        return None
    match node.name, node.args:
        case "setitem", (Ref(index=base), where, _):
            at, before = _at_positions(where, axis), _since(graph, base, write)
            start = at if isinstance(at, int) else (at.start or 0) if isinstance(at, Slice) and at.step is None else 0
            return None if before is None or not isinstance(start, int) else (*before, start)
        case "repeat_interleave", (Ref(index=base), int(), int() as along) if along not in (axis, axis - 4):
            return _since(graph, base, write)
        case "cat", ((Ref(index=first), *_), int() as along) if along == axis:
            return _prefix(graph, first, write, axis)
    return None


def _prefix(graph: Graph, index: int, write: Write, axis: int) -> tuple[int, ...] | None:
    """As `_since`, for a value that begins with some first positions of another."""
    node = graph.nodes[index]
    if not isinstance(node, Op) or node.name != "getitem" or node.kwargs:
        return None
    base, where = node.args
    at, before = _at_positions(where, axis), _since(graph, base.index, write)
    plain = isinstance(at, Slice) and at.start in (None, 0) and at.step is None and isinstance(at.stop, int)
    others = [part for number, part in enumerate(where if isinstance(where, tuple) else (where,)) if number != axis]
    if before is None or not plain or any(part != Slice() for part in others):
        return None
    return (*before, at.stop)


def _depths(graph: Graph, here: list[int], reads: dict[int, Read]) -> dict[int, int]:
    """For reads of which only some last positions are used, how many."""
    found = {index: 0 for index, read in reads.items() if position_axis(read.site) is not None}
    for index in here:
        for used in used_by(graph.nodes[index]):
            if used in found:
                depth = _depth(graph.nodes[index], used, position_axis(reads[used].site) or 0)
                if depth is None:
                    del found[used]
                else:
                    found[used] = max(found[used], depth)
    return found


def _depth(node: Node, used: int, axis: int) -> int | None:
    if not isinstance(node, Op) or node.name != "getitem" or node.args[0] != Ref(used):
        return None
    at = _at_positions(node.args[1], axis)
    if isinstance(at, Slice):
        ends = at.step is None and (at.stop is None or (isinstance(at.stop, int) and at.stop < 0))
        at = at.start if ends else None
    return -at if isinstance(at, int) and at < 0 else None


def _tail(graph: Graph, here: list[int], depends: list[tuple[int, ...]]) -> Tail:
    saves = [i for i in here if isinstance(graph.nodes[i], Save)]
    all_reads = frozenset(i for i in here if isinstance(graph.nodes[i], Read))
    nodes = sorted(ancestors(saves, depends, stop=all_reads))
    return Tail(
        reads=tuple([i for i in nodes if i in all_reads]),
        nodes=tuple([i for i in nodes if i not in all_reads]),
        key=tuple([(i, None if i in all_reads else graph.nodes[i]) for i in nodes]),
    )
