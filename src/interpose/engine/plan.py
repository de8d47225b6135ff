"""Plans: a graph compiled for one model.

Compiling finds which nodes are needed, in which order the worlds run, and, for each world, which modules are tapped and
what happens there in program order. A plan holds no tensor and is replayed with any feed.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from interpose.errors import GraphError
from interpose.graph.nodes import Gradient, Graph, Read, Save, Write, references
from interpose.graph.sites import Site
from interpose.models import Dims, Family, Place

Anchor = tuple[str, str]
"""A module's path and the side of it that is tapped: input, inputs, output or attention."""

_ORDER = {"raw": 0, "result": 2, "mid": 4, "scores": 5, "pattern": 6}


@dataclass(frozen=True)
class Tap:
    """What happens at one site of one world.

    Attributes:
        site: the site.
        place: where it lives; a form of `raw` is the module's own value.
        nodes: indices of its reads and writes, in program order.
    """

    site: Site
    place: Place
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class WorldPlan:
    """What happens in one call of the model.

    Attributes:
        name: the world.
        taps: for each tapped side of a module, its sites.
        captures: values wanted at other places by the forms `mid` and `result`, as (anchor, place).
        stoppable: nothing after the last tap is needed, and every tap is known to run once.
        gradients: the call is part of a derivative.
    """

    name: str
    taps: dict[Anchor, tuple[Tap, ...]]
    captures: dict[Anchor, tuple[Place, ...]]
    stoppable: bool
    gradients: bool


@dataclass(frozen=True)
class Plan:
    """A compiled graph.

    Attributes:
        graph: what was compiled.
        worlds: the calls of the model, in the order they run.
        sources: nodes that wait for nothing, made before any world runs.
        depends: for each node, the distinct nodes it uses.
        uses: for each node, the needed nodes that use it.
        waits: for each needed node, how many distinct nodes it waits for.
        targets: nodes that something is differentiated by.
        derivatives: for each differentiated number, the gradients asked of it.
    """

    graph: Graph
    worlds: tuple[WorldPlan, ...]
    sources: tuple[int, ...]
    depends: tuple[tuple[int, ...], ...]
    uses: dict[int, tuple[int, ...]]
    waits: dict[int, int]
    targets: frozenset[int]
    derivatives: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        """What will run, in order."""
        lines = []
        for world in self.worlds:
            note = " with gradients" if world.gradients else ""
            lines.append(f'forward pass "{world.name}"{note}' + (", stops after the last site" if world.stoppable else ""))
            for (module, side), taps in world.taps.items():
                lines += [f"  {module or 'the model'} ({side}): {tap.site}" for tap in taps]
        return "\n".join(lines)


def compile_graph(graph: Graph, family: Family | None, dims: Dims | None) -> Plan:
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
    reached = _ancestors(derivatives, depends)
    order = _world_order(graph, needed, depends)
    # A world without a target above it, or below the number differentiated, runs without gradients.
    differentiated = {graph.nodes[i].world for i in reached if isinstance(graph.nodes[i], Read | Write)}  # type: ignore[union-attr]
    differentiated |= _written_by(graph, reached, needed, depends)
    worlds = tuple(_world_plan(graph, name, needed, family, dims, name in differentiated) for name in order)
    return Plan(
        graph=graph,
        worlds=worlds,
        sources=tuple(i for i in sorted(needed) if not depends[i] and not isinstance(graph.nodes[i], Read)),
        depends=tuple(depends),
        uses={index: tuple(users) for index, users in uses.items()},
        waits={index: len(depends[index]) for index in needed},
        targets=frozenset(node.wrt.index for node in gradients.values()),
        derivatives={of: tuple(indices) for of, indices in derivatives.items()},
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


def _ancestors(starts: Iterable[int], depends: list[tuple[int, ...]]) -> set[int]:
    found: set[int] = set()
    stack = list(starts)
    while stack:
        index = stack.pop()
        if index not in found:
            found.add(index)
            stack.extend(depends[index])
    return found


def _written_by(graph: Graph, reached: set[int], needed: set[int], depends: list[tuple[int, ...]]) -> set[str]:
    """Worlds whose values reach a differentiated number through a write into another world."""
    found: set[str] = set()
    frontier = {node.world for i in reached if isinstance(node := graph.nodes[i], Read)}
    while frontier:
        world = frontier.pop()
        found.add(world)
        writes = [i for i in needed if isinstance(node := graph.nodes[i], Write) and node.world == world]
        for index in _ancestors(writes, depends):
            node = graph.nodes[index]
            if isinstance(node, Read) and node.world not in found:
                frontier.add(node.world)
    return found


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


def _world_plan(
    graph: Graph, name: str, needed: set[int], family: Family | None, dims: Dims | None, gradients: bool
) -> WorldPlan:
    nodes: dict[Site, list[int]] = defaultdict(list)
    for index, node in enumerate(graph.nodes):
        if index in needed and isinstance(node, Read | Write) and node.world == name:
            nodes[node.site].append(index)
    taps: dict[Anchor, list[Tap]] = defaultdict(list)
    captures: dict[Anchor, list[Place]] = defaultdict(list)
    for site, indices in nodes.items():
        place = place_of(site, family, dims)
        taps[place.module, place.side].append(Tap(site, place, tuple(indices)))
        if place.kernel and any(isinstance(graph.nodes[index], Write) for index in indices):
            taps[place.kernel, "attention"] += []
        for _, other in place.also:
            captures[other.module, other.side].append(other)
    for found in taps.values():
        found.sort(key=lambda tap: _ORDER.get(tap.place.form, 3))
    return WorldPlan(
        name=name,
        taps={anchor: tuple(found) for anchor, found in taps.items()},
        captures={anchor: tuple(found) for anchor, found in captures.items()},
        stoppable=all(not site.part or site.call is not None for site in nodes),
        gradients=gradients,
    )


def place_of(site: Site, family: Family | None, dims: Dims | None) -> Place:
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
