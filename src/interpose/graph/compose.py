"""One graph in front of another: what an edit does to every call of a model, as graphs alone.

An edit is a graph about one call, its world `main`; its other worlds, such as the run of a donor prompt, bring values
for it. In front of another graph its nodes come first, once for each world of that graph: at one site the edit then
writes first, and whatever the graph reads there has the edit in it.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from interpose.errors import GraphError
from interpose.graph.arguments import Steps
from interpose.graph.nodes import Constant, Graph, Input, Node, Read, Skip, Stop, World, Write, references, renumbered

MAIN = "main"
"""The world of an edit that stands for whichever call is edited."""


@dataclass(frozen=True)
class Composed:
    """A graph with an edit in front.

    Attributes:
        graph: both, as one graph; it saves what the second saves.
        worlds: its further worlds, each with the world of the edit that it is.
        tensors: its further constants, each with the constant of the edit that it is.
    """

    graph: Graph
    worlds: Mapping[str, str]
    tensors: Mapping[str, str]


def edit_of(graph: Graph) -> Graph:
    """The part of a graph that changes its one world, or the one named `main`: all that its writes there rest on.

    What it saves or says is left out, and its inputs become constants.

    Args:
        graph: any graph.

    Returns:
        a graph whose edited world is named `main`; an edit already is its own.

    Raises:
        GraphError: nothing is changed there, or it cannot be told what is.
    """
    main = _main(graph)
    depends = [tuple(dict.fromkeys(ref.index for ref in references(node))) for node in graph.nodes]
    kept = sorted(_needed(graph, main, depends))
    _check_worlds(graph, kept, main, depends)
    if not any(isinstance(graph.nodes[index], Write | Skip) for index in kept):
        raise GraphError(
            "This block changes nothing, so it is no edit. Write a site in it: layers[3].output[:, -1] += v"
        )
    number = {old: new for new, old in enumerate(kept)}
    speaks = {getattr(graph.nodes[index], "world", main) for index in kept} | {main}
    worlds = [
        World(
            MAIN if world.name == main else world.name, world.base if world.base in speaks - {main} else None, world.at
        )
        for world in graph.worlds
        if world.name in speaks
    ]
    return Graph(tuple(worlds), tuple(_in_edit(graph.nodes[index], main, number) for index in kept))


def compose(edit: Graph, graph: Graph, generations: Collection[str] = ()) -> Composed:
    """An edit in front of a graph.

    Args:
        edit: what `edit_of` gave.
        graph: what runs on the edited model; each of its worlds is edited.
        generations: those of its worlds that are generations; every step of them is edited, unless the edit says which.

    Returns:
        one graph, and what its feed needs of the edit's.
    """
    prefix = _free_prefix(graph)
    depends = [tuple(ref.index for ref in references(node)) for node in edit.nodes]
    own = _resting_on_main(edit, depends)
    nodes: list[Node] = []
    shared: dict[int, int] = {}
    for index, node in enumerate(edit.nodes):
        if index not in own:
            shared[index] = len(nodes)
            nodes.append(_named(renumbered(node, shared.__getitem__), prefix))
    for world in graph.worlds:
        here = dict(shared)
        for index in own:
            node: Any = renumbered(edit.nodes[index], here.__getitem__)
            if getattr(node, "world", None) == MAIN:
                every = Steps() if world.name in generations and node.steps is None else node.steps
                node = replace(node, world=world.name, steps=every)
            here[index] = len(nodes)
            nodes.append(node)
    front = len(nodes)
    nodes += [renumbered(node, lambda index: index + front) for node in graph.nodes]
    others = [world for world in edit.worlds if world.name != MAIN]
    beside = [replace(world, name=prefix + world.name, base=world.base and prefix + world.base) for world in others]
    constants = [node.ref for node in edit.nodes if isinstance(node, Constant)]
    return Composed(
        Graph((*graph.worlds, *beside), tuple(nodes)),
        {prefix + world.name: world.name for world in others},
        {prefix + name: name for name in constants},
    )


def _main(graph: Graph) -> str:
    names = [world.name for world in graph.worlds]
    if MAIN not in names and len(names) != 1:
        raise GraphError(
            f"An edit changes one world, and it cannot be told which of {names} that is. Name it main: "
            'with t.world("main", prompt): ...'
        )
    return MAIN if MAIN in names else names[0]


def _needed(graph: Graph, main: str, depends: list[tuple[int, ...]]) -> set[int]:
    changes: dict[str, list[int]] = defaultdict(list)
    for index, node in enumerate(graph.nodes):
        if isinstance(node, Stop):
            raise GraphError(
                f"{node.at}: an edit cannot stop the model: every run of it would end there. Leave it out."
            )
        if isinstance(node, Write | Skip):
            changes[node.world].append(index)
    needed: set[int] = set()
    stack = list(changes[main])
    while stack:
        index = stack.pop()
        if index not in needed:
            needed.add(index)
            stack.extend(depends[index])
            node = graph.nodes[index]
            stack.extend(changes[node.world] if isinstance(node, Read) else ())
    return needed


def _check_worlds(graph: Graph, kept: list[int], main: str, depends: list[tuple[int, ...]]) -> None:
    """Another world that needs the edited one would have to run once for every world that is edited."""
    rest: set[int] = set()
    for index in kept:
        node: Any = graph.nodes[index]
        if (isinstance(node, Read) and node.world == main) or not rest.isdisjoint(depends[index]):
            rest.add(index)
        if index in rest and isinstance(node, Write | Skip) and node.world != main:
            raise GraphError(
                f"{node.at}: the world {node.world!r} of an edit takes a value from {main!r}, the one that is edited. "
                f"Values may only go the other way, from {node.world!r} into {main!r}."
            )


def _resting_on_main(edit: Graph, depends: list[tuple[int, ...]]) -> list[int]:
    rest: dict[int, None] = {}
    for index, node in enumerate(edit.nodes):
        if getattr(node, "world", None) == MAIN or any(used in rest for used in depends[index]):
            rest[index] = None
    return list(rest)


def _in_edit(node: Any, main: str, number: Mapping[int, int]) -> Node:
    node = renumbered(node, number.__getitem__)
    if isinstance(node, Input):
        return Constant(ref=node.name, at=node.at)
    if getattr(node, "world", None) != main:
        return node
    return replace(node, world=MAIN, steps=None if node.steps == Steps() else node.steps)  # all steps are every call


def _named(node: Any, prefix: str) -> Node:
    if isinstance(node, Constant):
        return replace(node, ref=prefix + node.ref)
    return replace(node, world=prefix + node.world) if hasattr(node, "world") else node


def _free_prefix(graph: Graph) -> str:
    taken = [world.name for world in graph.worlds]
    taken += [node.ref for node in graph.nodes if isinstance(node, Constant)]
    taken += [node.name for node in graph.nodes if isinstance(node, Input)]
    prefixes = (f"edit{number}." for number in count(1))
    return next(prefix for prefix in prefixes if not any(name.startswith(prefix) for name in taken))
