"""Where a graph names positions by number, as a graph alone.

Followed are the values of standard sites, changed copies of them, and plain indices of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from interpose.graph.arguments import Dots, Ref, Slice
from interpose.graph.nodes import Constant, Graph, Node, Op, Read
from interpose.graph.sites import NEW_TOKENS, Site

_Axes = tuple[str | None, ...]


@dataclass(frozen=True)
class Named:
    """One index that picks positions.

    Attributes:
        node: the indexing operation.
        read: the read of the site whose positions are picked.
        part: the part of the index that picks them: an integer, a slice, a tuple of integers, or a `Constant`.
    """

    node: Node
    read: Read
    part: Any

    @property
    def site(self) -> Site:
        """The site whose positions are picked."""
        return self.read.site


def named_positions(graph: Graph, world: str) -> Iterator[Named]:
    """Every index in a graph that picks positions of a site of one world, in program order.

    Args:
        graph: any graph.
        world: the name of the world.

    Yields:
        each index that does not take all positions; what is computed in the graph (a `Ref`) is not followed.
    """
    known: dict[int, tuple[Read, _Axes]] = {}
    for index, node in enumerate(graph.nodes):
        if isinstance(node, Read) and node.world == world and not node.site.part and node.site.name != NEW_TOKENS:
            known[index] = node, node.site.axes or ()
        if not isinstance(node, Op) or node.name not in ("getitem", "setitem") or type(node.args[0]) is not Ref:
            continue
        held = known.get(node.args[0].index)
        if held is None:
            continue
        read, axes = held
        parts = _parts(node.args[1], len(axes))
        for part, axis in parts:
            if axis is not None and axes[axis] == "P" and part != Slice():
                yield Named(node, read, _captured(part, graph))
        if node.name == "setitem":
            known[index] = held
        elif all(type(part) in (int, Slice) for part, _ in parts):
            known[index] = read, _left(parts, axes)


def counts_from_start(part: Any, tensors: Mapping[str, Any]) -> bool:
    """Whether a part of an index counts positions from the start.

    Args:
        part: as in `Named`.
        tensors: the tensors of the graph's feed.
    """
    match part:
        case bool():
            return False
        case int():
            return part >= 0
        case Slice(start=start, stop=stop):
            return any(isinstance(bound, int) and bound >= 0 for bound in (start, stop))
        case tuple():
            return any(counts_from_start(item, tensors) for item in part)
        case Constant(ref=name):
            positions = tensors[name]
            return str(positions.dtype) == "torch.bool" or bool((positions >= 0).any())
    return False


def _captured(part: Any, graph: Graph) -> Any:
    node = graph.nodes[part.index] if type(part) is Ref else None
    return node if isinstance(node, Constant) else part


def _parts(where: Any, rank: int) -> list[tuple[Any, int | None]]:
    """The parts of an index, each with the axis that it is about; None for a new axis, or where that cannot be told."""
    parts = list(where) if type(where) is tuple else [where]
    if Dots() in parts:
        at, missing = parts.index(Dots()), rank - sum(part is not None for part in parts) + 1
        parts = [*parts[:at], *[Slice()] * missing, *parts[at + 1 :]]
    found, axis = [], 0
    for part in parts:
        wide = part is not None and type(part) is not bool
        found.append((part, axis if wide and axis < rank else None))
        axis += wide
    return found


def _left(parts: list[tuple[Any, int | None]], axes: _Axes) -> _Axes:
    dropped = {axis for part, axis in parts if type(part) is int}
    return tuple(name for axis, name in enumerate(axes) if axis not in dropped)
