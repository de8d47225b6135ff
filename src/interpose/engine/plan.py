"""Plans: a graph compiled for one model.

Compiling finds which nodes are needed, in which order the worlds run, and, for each world, which modules are tapped and
what happens there in program order. A plan holds no tensor and is replayed with any feed.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from interpose.engine.lenses import Lens, lens
from interpose.engine.ops import evaluator
from interpose.errors import GraphError
from interpose.graph.nodes import Gradient, Graph, Op, Read, Save, Weight, World, Write, references
from interpose.graph.places import Dims, Place, Table
from interpose.graph.sites import Site

Anchor = tuple[str, str]
"""A module's path and the side of it that is tapped: input, inputs, output, attention or inline."""

_STAGES = {"result": 0, "mid": 2, "scores": 3, "pattern": 4}
"""What is made of another tensor of a module comes before it, or after; all other forms are that tensor itself."""


@dataclass(frozen=True)
class Tap:
    """What happens at one site of one world, in one go.

    Attributes:
        site: the site.
        place: where it lives; a form of `raw` is the module's own value.
        lens: how the site's value is found there.
        steps: its reads and writes in program order: the node's index, and the write (None for a read).
        number: counts the sites of the world.
    """

    site: Site
    place: Place
    lens: Lens
    steps: tuple[tuple[int, Write | None], ...]
    number: int


@dataclass(frozen=True)
class WorldPlan:
    """What happens in one call of the model.

    Attributes:
        world: the world.
        sites: every site that must be reached.
        taps: for each tapped side of a module, its sites.
        captures: values wanted at other places by the forms `mid` and `result`.
        wanted: how many taps want each of them.
        stoppable: nothing after the last tap is needed, and every tap is known to run once.
        gradients: the call is part of a derivative.
    """

    world: World
    sites: tuple[Site, ...]
    taps: dict[Anchor, tuple[Tap, ...]]
    captures: dict[Anchor, tuple[Place, ...]]
    wanted: dict[Place, int]
    stoppable: bool
    gradients: bool

    @property
    def name(self) -> str:
        """The world's name."""
        return self.world.name


@dataclass(frozen=True)
class Plan:
    """A compiled graph.

    Attributes:
        graph: what was compiled.
        worlds: the calls of the model, in the order they run.
        sources: nodes that wait for nothing, made before any world runs.
        depends: for each node, the distinct nodes it uses.
        uses: for each node, the needed nodes that use it.
        waits: for each node, how many distinct nodes it waits for.
        evaluators: for each node that is made from other nodes' values, how.
        targets: nodes that something is differentiated by.
        tainted: the targets and everything that rests on one of them; only these are made with derivatives.
        derivatives: for each differentiated number, the gradients asked of it.
        higher: gradients that another differentiated number rests on.
    """

    graph: Graph
    worlds: tuple[WorldPlan, ...]
    sources: tuple[int, ...]
    depends: tuple[tuple[int, ...], ...]
    uses: tuple[tuple[int, ...], ...]
    waits: tuple[int, ...]
    evaluators: tuple[Callable[[Any], Any] | None, ...]
    targets: frozenset[int]
    tainted: frozenset[int]
    derivatives: dict[int, tuple[int, ...]] = field(default_factory=dict)
    higher: frozenset[int] = frozenset()

    def __str__(self) -> str:
        """What will run, in order."""
        lines = []
        for world in self.worlds:
            note = " with gradients" if world.gradients else ""
            lines.append(
                f'forward pass "{world.name}"{note}' + (", stops after the last site" if world.stoppable else "")
            )
            for (module, side), taps in world.taps.items():
                lines += [f"  {module or 'the model'} ({side}): {tap.site}" for tap in taps]
        return "\n".join(lines)


def compile_graph(graph: Graph, family: Table | None, dims: Dims | None) -> Plan:
    """Compile a graph.

    Args:
        graph: what to do.
        family: the model's table, if it has one.
        dims: the model's sizes, if it has a table.

    Returns:
        the plan.

    Raises:
        SiteError: the model lacks a site.
        GraphError: worlds wait for each other.
    """
    depends = [tuple(dict.fromkeys(ref.index for ref in references(node))) for node in graph.nodes]
    needed = _needed(graph, depends)
    uses: dict[int, list[int]] = defaultdict(list)
    for index in sorted(needed):
        for used in depends[index]:
            uses[used].append(index)
    gradients = {i: node for i, node in enumerate(graph.nodes) if isinstance(node, Gradient) and i in needed}
    derivatives: dict[int, list[int]] = defaultdict(list)
    for index, node in gradients.items():
        derivatives[node.of.index].append(index)
    order = _world_order(graph, needed, depends)
    targets = frozenset(node.wrt.index for node in gradients.values())
    detached = _detached(graph)
    higher = frozenset(i for i in gradients if i in _ancestors(derivatives, depends, stop=detached))
    ends = detached | {i for i in gradients if i not in higher}
    tainted, differentiated = _tainted(graph, targets, ends, needed, depends)
    places = {site: place_of(site, family, dims) for site in _sites(graph, needed)}
    return Plan(
        graph=graph,
        worlds=tuple(_world_plan(graph, name, needed, places, name in differentiated) for name in order),
        sources=tuple(i for i in sorted(needed) if not depends[i] and not isinstance(graph.nodes[i], Read)),
        depends=tuple(depends),
        uses=tuple(tuple(uses[index]) for index in range(len(graph.nodes))),
        waits=tuple(len(used) for used in depends),
        evaluators=tuple(evaluator(node) for node in graph.nodes),
        targets=targets,
        tainted=tainted,
        derivatives={of: tuple(indices) for of, indices in derivatives.items()},
        higher=higher,
    )


def _needed(graph: Graph, depends: list[tuple[int, ...]]) -> set[int]:
    """Saves, all they rest on, and every write of a world that something needed reads."""
    writes: dict[str, list[int]] = defaultdict(list)
    for index, node in enumerate(graph.nodes):
        if isinstance(node, Write):
            writes[node.world].append(index)
    needed: set[int] = set()
    stack = [index for index, node in enumerate(graph.nodes) if isinstance(node, Save)]
    while stack:
        index = stack.pop()
        if index in needed:
            continue
        needed.add(index)
        stack.extend(depends[index])
        node = graph.nodes[index]
        if isinstance(node, Read):
            stack.extend(writes[node.world])
    return needed


def _ancestors(starts: Iterable[int], depends: list[tuple[int, ...]], stop: frozenset[int] = frozenset()) -> set[int]:
    """The nodes that some nodes rest on, themselves included; what lies above one in `stop` does not count."""
    found: set[int] = set()
    stack = list(starts)
    while stack:
        index = stack.pop()
        if index not in found:
            found.add(index)
            if index not in stop:
                stack.extend(depends[index])
    return found


def _detached(graph: Graph) -> frozenset[int]:
    return frozenset(i for i, node in enumerate(graph.nodes) if isinstance(node, Op) and node.name == "detach")


def _sites(graph: Graph, needed: set[int]) -> Iterable[Site]:
    """The sites in the order in which they are first named, so that errors are about the first."""
    return dict.fromkeys(node.site for i in sorted(needed) if isinstance(node := graph.nodes[i], Read | Write))


def _tainted(
    graph: Graph, targets: frozenset[int], ends: frozenset[int], needed: set[int], depends: list[tuple[int, ...]]
) -> tuple[frozenset[int], set[str]]:
    """What rests on a target, not only through one of `ends`: nodes, and the worlds that must run with derivatives."""
    nodes: set[int] = set(targets)
    by_weight = any(isinstance(graph.nodes[index], Weight) for index in targets)
    worlds = {world.name for world in graph.worlds} if by_weight else set()
    while True:
        before = len(nodes), len(worlds)
        for index in sorted(needed):
            node = graph.nodes[index]
            above = not nodes.isdisjoint(depends[index]) and index not in ends
            if above or (isinstance(node, Read) and node.world in worlds):
                nodes.add(index)
            if index in nodes and isinstance(node, Read | Write):
                worlds.add(node.world)
        if before == (len(nodes), len(worlds)):
            return frozenset(nodes), worlds


def _world_order(graph: Graph, needed: set[int], depends: list[tuple[int, ...]]) -> list[str]:
    waits: dict[str, set[str]] = {}
    for world in graph.worlds:
        touched = [i for i in needed if isinstance(node := graph.nodes[i], Read | Write) and node.world == world.name]
        if touched:
            sources = _ancestors([i for i in touched if isinstance(graph.nodes[i], Write)], depends)
            waits[world.name] = {node.world for i in sources if isinstance(node := graph.nodes[i], Read)} - {world.name}
    order: list[str] = []
    while len(order) < len(waits):
        ready = [name for name in waits if name not in order and waits[name] <= set(order)]
        if not ready:
            stuck = [name for name in waits if name not in order]
            raise GraphError(
                f"The worlds {stuck} wait for each other: each writes a value that is read in the other. "
                "A world runs once, whole; open one more world for the second half."
            )
        order += ready
    return order


def _world_plan(graph: Graph, name: str, needed: set[int], places: dict[Site, Place], gradients: bool) -> WorldPlan:
    taps: dict[Anchor, list[Tap]] = defaultdict(list)
    captures: dict[Anchor, list[Place]] = defaultdict(list)
    numbers: dict[Site, int] = {}
    for index, node in enumerate(graph.nodes):
        if index not in needed or not isinstance(node, Read | Write) or node.world != name:
            continue
        place, found = places[node.site], taps[places[node.site].module, places[node.site].side]
        step = (index, node if isinstance(node, Write) else None)
        number = numbers.setdefault(node.site, len(numbers))
        if found and found[-1].site == node.site:
            found[-1] = Tap(node.site, place, found[-1].lens, (*found[-1].steps, step), number)
        else:
            found.append(Tap(node.site, place, lens(place), (step,), number))
        if place.kernel and isinstance(node, Write):
            taps[place.kernel] += []
        for _, other in place.also:
            if other not in captures[other.module, other.side]:
                captures[other.module, other.side].append(other)
    return WorldPlan(
        world=next(world for world in graph.worlds if world.name == name),
        sites=tuple(numbers),
        taps={anchor: tuple(sorted(found, key=_stage)) for anchor, found in taps.items()},
        captures={anchor: tuple(found) for anchor, found in captures.items()},
        wanted=Counter(other for found in taps.values() for tap in found for _, other in tap.place.also),
        stoppable=all(not site.part or site.call is not None for site in numbers),
        gradients=gradients,
    )


def _stage(tap: Tap) -> int:
    return _STAGES.get(tap.place.form, 1)


def place_of(site: Site, family: Table | None, dims: Dims | None) -> Place:
    """Where a site lives: by the family's table, or as a module's own value.

    Raises:
        GraphError: a standard name on a model without a table.
    """
    if site.part:
        return Place(site.name, site.part, "raw")  # type: ignore[arg-type]
    if family is None or dims is None:
        raise GraphError(
            f"This model's architecture has no table, so {site} has no meaning here. "
            'Reach its parts by path: model.module("path.of.module").output.'
        )
    return family.place(site, dims)
