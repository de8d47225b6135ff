"""World plans: what happens in one call of the network, module by module, in program order."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from interpose.engine.lenses import Lens, lens
from interpose.graph.nodes import Graph, Read, Skip, Stop, World, Write
from interpose.graph.places import Place
from interpose.graph.sites import NEW_TOKENS, Site

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
        kept: where all that happens is that the value is read and saved, the names it is saved under.
    """

    site: Site
    place: Place
    lens: Lens
    steps: tuple[tuple[int, Write | None], ...]
    number: int
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A module that is not run.

    Attributes:
        node: says what stands for it.
        form: `whole`, what it returns; `tensor`; or `first`, the first of what it returns, beside None.
        number: counts the sites of the world.
        last: no other module is left out for the same node after it.
    """

    node: Skip
    form: str
    number: int
    last: bool


@dataclass(frozen=True)
class WorldPlan:
    """What happens in one call of the network.

    Attributes:
        world: the world.
        sites: every site that must be reached.
        taps: for each tapped side of a module, its sites.
        captures: values wanted at other places by the forms `mid` and `result`.
        wanted: how many taps want each of them.
        skips: the modules that are not run.
        stoppable: nothing after the last tap is needed, and every tap is known to run once.
        stops: the program says that nothing after the last tap is to be run.
        gradients: the call is part of a derivative.
    """

    world: World
    sites: tuple[Site, ...]
    taps: dict[Anchor, tuple[Tap, ...]]
    captures: dict[Anchor, tuple[Place, ...]]
    wanted: dict[Place, int]
    skips: dict[str, LeftOut]
    stoppable: bool
    stops: bool
    gradients: bool

    @property
    def name(self) -> str:
        """The world's name."""
        return self.world.name

    @property
    def reads_logits(self) -> bool:
        """Whether a site may be the logits."""
        return any(site.part or site.name == "logits" for site in self.sites)

    @property
    def modules(self) -> set[str]:
        """The paths of all modules that it touches."""
        return {module for module, _ in (*self.taps, *self.captures)} | set(self.skips)

    def __str__(self) -> str:
        """What will run, in order."""
        notes = (" with gradients" if self.gradients else "") + (
            ", stops after the last site" if self.stoppable else ""
        )
        lines = [f'forward pass "{self.name}"{notes}']
        lines += [f"  {module or 'the model'}: not run" for module in self.skips]
        for (module, side), taps in self.taps.items():
            lines += [f"  {module or 'the model'} ({side}): {tap.site}" for tap in taps]
        return "\n".join(lines)


@dataclass(frozen=True)
class Where:
    """Where the sites of a graph live in one model.

    Attributes:
        places: each site's place.
        skips: for each site whose module is left out, the modules and their forms.
        kept: the reads whose value is saved as it is and not used otherwise, with the names.
    """

    places: Mapping[Site, Place]
    skips: Mapping[Site, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    kept: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


def world_plan(graph: Graph, name: str, nodes: Collection[int], where: Where, gradients: bool) -> WorldPlan:
    """What happens in one call of the network.

    Args:
        graph: the graph.
        name: the world.
        nodes: the nodes that count; those of other worlds may be among them.
        where: where the graph's sites live.
        gradients: the call is part of a derivative.
    """
    taps: dict[Anchor, list[Tap]] = defaultdict(list)
    captures: dict[Anchor, list[Place]] = defaultdict(list)
    skips: dict[str, LeftOut] = {}
    numbers: dict[Site, int] = {}
    here = [(i, node) for i in sorted(nodes) if getattr(node := graph.nodes[i], "world", None) == name]
    for index, node in here:
        if isinstance(node, Skip):
            number = numbers.setdefault(node.site, len(numbers))
            modules = where.skips[node.site]
            skips |= {path: LeftOut(node, form, number, path == modules[-1][0]) for path, form in modules}
        elif isinstance(node, Read | Write) and node.site.name != NEW_TOKENS:
            _add_tap(taps, captures, numbers, (index, node, where.places[node.site]))
    for anchor, found in taps.items():
        taps[anchor] = [_simple(tap, where) for tap in found]
    stops = any(isinstance(node, Stop) for _, node in here)
    return WorldPlan(
        world=next(world for world in graph.worlds if world.name == name),
        sites=tuple(numbers),
        taps={anchor: tuple(sorted(found, key=_stage)) for anchor, found in taps.items()},
        captures={anchor: tuple(found) for anchor, found in captures.items()},
        wanted=Counter(other for found in taps.values() for tap in found for _, other in tap.place.also),
        skips=skips,
        stoppable=stops or all(not site.part or site.call is not None for site in numbers),
        stops=stops,
        gradients=gradients,
    )


def _add_tap(
    taps: dict[Anchor, list[Tap]],
    captures: dict[Anchor, list[Place]],
    numbers: dict[Site, int],
    step: tuple[int, Read | Write, Place],
) -> None:
    index, node, place = step
    found = taps[place.module, place.side]
    what = (index, node if isinstance(node, Write) else None)
    number = numbers.setdefault(node.site, len(numbers))
    if found and found[-1].site == node.site:
        found[-1] = Tap(node.site, place, found[-1].lens, (*found[-1].steps, what), number)
    else:
        found.append(Tap(node.site, place, lens(place), (what,), number))
    if place.kernel and isinstance(node, Write):
        taps[place.kernel] += []
    for _, other in place.also:
        if other not in captures[other.module, other.side]:
            captures[other.module, other.side].append(other)


def _simple(tap: Tap, where: Where) -> Tap:
    index, write = tap.steps[0]
    names = where.kept.get(index, ()) if len(tap.steps) == 1 and write is None and not tap.place.also else ()
    return replace(tap, kept=names) if names else tap


def _stage(tap: Tap) -> int:
    return _STAGES.get(tap.place.form, 1)
