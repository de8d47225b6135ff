"""Plans: a graph compiled for one model.

Compiling finds which nodes are needed, in which order the worlds run, and, for each world, which modules are tapped and
what happens there in program order. A plan holds no tensor and is replayed with any feed.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from interpose.engine.needs import (
    ancestors,
    detached,
    named_sites,
    needed_nodes,
    steps_of,
    tainted,
    used_by,
    world_order,
)
from interpose.engine.ops import evaluator
from interpose.engine.world_plan import Where, WorldPlan, world_plan
from interpose.errors import GraphError
from interpose.graph.arguments import Steps
from interpose.graph.nodes import Apply, Gradient, Graph, Log, Read, Save, Skip, Write
from interpose.graph.places import Dims, Place, Table
from interpose.graph.sites import NEW_TOKENS, Site


@dataclass(frozen=True)
class Plan:
    """A compiled graph.

    Attributes:
        graph: what was compiled.
        worlds: the calls of the model, in the order they run.
        sources: nodes that wait for nothing, made before any world runs.
        depends: for each node, the distinct nodes it uses.
        uses: for each node, the needed nodes that use it.
        counts: how many they are.
        waits: for each node, how many distinct nodes it waits for.
        evaluators: for each node that is made from other nodes' values, how.
        targets: nodes that something is differentiated by.
        unread: the targets that are reads of which nothing else is wanted, so that their numbers need not be kept.
        tainted: the targets and everything that rests on one of them; only these are made with derivatives.
        derivatives: for each differentiated number, the gradients asked of it.
        passes: the differentiated numbers whose derivative goes back through a run of the model.
        higher: gradients that another differentiated number rests on.
        needed: the nodes that count.
        where: where the graph's sites live.
        stepped: the needed nodes that have one value a step of a generation.
        effects: something is said or called while it runs, so that it must not be run twice.
        among_others: lines that say what a run of it costs among others that share its unchanged run.
    """

    graph: Graph
    worlds: tuple[WorldPlan, ...]
    sources: tuple[int, ...]
    depends: tuple[tuple[int, ...], ...]
    uses: tuple[tuple[int, ...], ...]
    counts: tuple[int, ...]
    waits: tuple[int, ...]
    evaluators: tuple[Callable[[Any], Any] | None, ...]
    targets: frozenset[int]
    unread: frozenset[int]
    tainted: frozenset[int]
    derivatives: dict[int, tuple[int, ...]] = field(default_factory=dict)
    passes: frozenset[int] = frozenset()
    higher: frozenset[int] = frozenset()
    needed: frozenset[int] = frozenset()
    where: Where = field(default_factory=lambda: Where({}))
    stepped: dict[int, Steps] = field(default_factory=dict)
    effects: bool = False
    among_others: tuple[str, ...] = ()

    def __str__(self) -> str:
        """What will run, in order."""
        lines: list[str] = []
        for world in self.worlds:
            spans = self.spans(world.name)
            lines += [f'generation "{world.name}"'] if spans else [str(world)]
            for steps in spans:
                here = [i for i in self.needed if getattr(self.graph.nodes[i], "steps", None) == steps]
                lines += [
                    f" at {steps}:",
                    *str(world_plan(self.graph, world.name, here, self.where, False)).split("\n")[1:],
                ]
        return "\n".join([*lines, *self.among_others])

    def at_step(self, world: WorldPlan, step: int) -> WorldPlan:
        """What of a world happens at one step of a generation."""
        nodes = [i for i in self.needed if step in (getattr(self.graph.nodes[i], "steps", None) or ())]
        here = world_plan(self.graph, world.name, nodes, self.where, gradients=False)
        return replace(here, stoppable=here.stops)  # the rest of the network chooses the next token

    def spans(self, world: str) -> dict[Steps, str]:
        """All steps that a world names, each with the first line that names it."""
        nodes = [self.graph.nodes[i] for i in sorted(self.needed)]
        found = [node for node in nodes if getattr(node, "world", None) == world and getattr(node, "steps", None)]
        return {node.steps: node.at for node in reversed(found)}  # type: ignore[attr-defined]


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
    depends = [used_by(node) for node in graph.nodes]
    needed = needed_nodes(graph, depends)
    uses: dict[int, list[int]] = defaultdict(list)
    for index in sorted(needed):
        for used in depends[index]:
            uses[used].append(index)
    gradients = {i: node for i, node in enumerate(graph.nodes) if isinstance(node, Gradient) and i in needed}
    derivatives: dict[int, list[int]] = defaultdict(list)
    for index, node in gradients.items():
        derivatives[node.of.index].append(index)
    order = world_order(graph, needed, depends)
    targets = frozenset(node.wrt.index for node in gradients.values())
    cut = detached(graph)
    higher = frozenset(i for i in gradients if i in ancestors(derivatives, depends, stop=cut))
    ends = cut | {i for i in gradients if i not in higher}
    rests, differentiated = tainted(graph, targets, ends, needed, depends)
    passes = {i for i, asked in derivatives.items() if _through_a_run(graph, i, asked, depends, (ends, rests))}
    stepped = {index: steps for index, steps in steps_of(graph, depends).items() if index in needed}
    where = _where(graph, needed, family, dims, _kept(graph, uses, targets | set(derivatives) | set(stepped)))
    evaluators = tuple(evaluator(node) for node in graph.nodes)
    return Plan(
        graph=graph,
        worlds=tuple(world_plan(graph, name, needed, where, name in differentiated) for name in order),
        sources=tuple(i for i in sorted(needed) if not depends[i] and evaluators[i] is not None),
        depends=tuple(depends),
        uses=tuple(tuple(uses[index]) for index in range(len(graph.nodes))),
        counts=tuple(len(uses[index]) for index in range(len(graph.nodes))),
        waits=tuple(len(used) for used in depends),
        evaluators=evaluators,
        targets=targets,
        unread=frozenset(
            i
            for i in targets
            if isinstance(graph.nodes[i], Read) and i not in derivatives and gradients.keys() >= {*uses[i]}
        ),
        tainted=rests,
        derivatives={of: tuple(indices) for of, indices in derivatives.items()},
        passes=frozenset(passes),
        higher=higher,
        needed=frozenset(needed),
        where=where,
        stepped=stepped,
        effects=any(isinstance(graph.nodes[index], Log | Apply) for index in needed),
    )


def _through_a_run(
    graph: Graph,
    number: int,
    asked: list[int],
    depends: list[tuple[int, ...]],
    ends_and_rests: tuple[frozenset[int], frozenset[int]],
) -> bool:
    """Whether something that a run of the model made lies between a number and what it is differentiated by."""
    ends, rests = ends_and_rests
    gradients = [node for i in asked if isinstance(node := graph.nodes[i], Gradient)]
    between = ancestors([number], depends, ends | {node.wrt.index for node in gradients})
    return any(isinstance(graph.nodes[i], Read) and i in rests for i in between)


def _kept(graph: Graph, uses: Mapping[int, list[int]], others: AbstractSet[int]) -> dict[int, tuple[str, ...]]:
    """The reads of which nothing is wanted but to be saved, with the names."""
    found = {}
    for index, users in uses.items():
        saves = [node.name for user in users if isinstance(node := graph.nodes[user], Save)]
        if isinstance(graph.nodes[index], Read) and len(saves) == len(users) and index not in others:
            found[index] = tuple(saves)
    return found


def _where(
    graph: Graph, needed: set[int], family: Table | None, dims: Dims | None, kept: dict[int, tuple[str, ...]]
) -> Where:
    places = {
        site: place_of(site, family, dims)
        for site in named_sites(graph, needed, Read, Write)
        if site.part or site.name != NEW_TOKENS
    }
    return Where(places, {site: skipped(site, family, dims) for site in named_sites(graph, needed, Skip)}, kept)


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


def skipped(site: Site, family: Table | None, dims: Dims | None) -> tuple[tuple[str, str], ...]:
    """The modules that are left out where a site is given without running what makes it, each with its form.

    Raises:
        GraphError: a standard name on a model without a table, or a site that no module makes by itself.
    """
    if site.part:
        return ((site.name, "whole"),)
    place_of(site, family, dims)
    assert family is not None
    return family.skips(site)
