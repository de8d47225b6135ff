"""What of a graph is needed, and in which order its worlds can run."""

from collections import defaultdict
from collections.abc import Iterable

from interpose.errors import GraphError
from interpose.graph.arguments import Steps
from interpose.graph.nodes import Apply, Graph, Log, Node, Op, Read, Save, Skip, Stop, Weight, Write, references
from interpose.graph.sites import Site


def used_by(node: Node) -> tuple[int, ...]:
    """The distinct nodes that a node uses; found once, since many graphs of a sweep share most of their nodes."""
    found = node.__dict__.get("_used")
    if found is None:
        found = tuple(dict.fromkeys(ref.index for ref in references(node)))
        object.__setattr__(node, "_used", found)
    return found


def needed_nodes(graph: Graph, depends: list[tuple[int, ...]]) -> set[int]:
    """What is saved, said or applied, all it rests on, and every write of a world that something needed reads."""
    writes: dict[str, list[int]] = defaultdict(list)
    for index, node in enumerate(graph.nodes):
        if isinstance(node, Write | Skip | Stop):
            writes[node.world].append(index)
    needed: set[int] = set()
    stack = [index for index, node in enumerate(graph.nodes) if isinstance(node, Save | Log | Apply)]
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


def ancestors(starts: Iterable[int], depends: list[tuple[int, ...]], stop: frozenset[int] = frozenset()) -> set[int]:
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


def detached(graph: Graph) -> frozenset[int]:
    """The nodes through which no derivative passes."""
    return frozenset(i for i, node in enumerate(graph.nodes) if isinstance(node, Op) and node.name == "detach")


def named_sites(graph: Graph, needed: set[int], *kinds: type[Read | Write | Skip]) -> Iterable[Site]:
    """The sites of some kinds of nodes, in the order in which they are first named: errors are then about the first."""
    return dict.fromkeys(node.site for i in sorted(needed) if isinstance(node := graph.nodes[i], kinds))


def tainted(
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
            if index in nodes and isinstance(node, Read | Write | Skip):
                worlds.add(node.world)
        if before == (len(nodes), len(worlds)):
            return frozenset(nodes), worlds


def world_order(graph: Graph, needed: set[int], depends: list[tuple[int, ...]]) -> list[str]:
    """The worlds in an order in which each finds what it writes.

    Raises:
        GraphError: worlds wait for each other.
    """
    waits: dict[str, set[str]] = {}
    for world in graph.worlds:
        touched = [i for i in needed if getattr(graph.nodes[i], "world", None) == world.name]
        if touched:
            sources = ancestors([i for i in touched if isinstance(graph.nodes[i], Write | Skip)], depends)
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


def steps_of(graph: Graph, depends: list[tuple[int, ...]]) -> dict[int, Steps]:
    """The nodes that have one value a step of a generation, and which steps those are.

    Raises:
        GraphError: a node mixes values of different steps.
    """
    found: dict[int, tuple[str | None, Steps]] = {}
    for index, node in enumerate(graph.nodes):
        own = getattr(node, "steps", None)
        spans = {found[used] for used in depends[index] if used in found}
        if own is not None and not own.one and not isinstance(node, Stop):
            spans.add((getattr(node, "world", None), own))
        if spans:
            found[index] = spans.pop()
            if spans or (isinstance(node, Write | Skip) and (node.world, own) != found[index]):
                raise GraphError(
                    f"{node.at}: this mixes values of different steps or generations ({found[index][1]}, "
                    f"{', '.join([str(steps) for _, steps in spans] or [str(own)])}). Compute it inside one "
                    "`with t.steps(...)` block."
                )
    return {index: steps for index, (_, steps) in found.items()}
