"""Where a value differs from what it was made of: by position, looking only at the part that was written."""

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from interpose.graph.arguments import Ref, Slice
from interpose.graph.nodes import Node, Op


@final
@dataclass(frozen=True)
class Indexed:
    """A tensor with one part of it replaced.

    Attributes:
        of: the node that the tensor comes from.
        where: for each of its first axes, which entries are replaced.
        value: the node that the new part comes from.
        single: the axes on which one entry is named, which the new part does not have.
    """

    of: int
    where: tuple[slice, ...]
    value: int
    single: tuple[int, ...]

    def fitting(self, value: Any, whole: Tensor) -> Tensor | None:
        """The new part in the shape of what it replaces; None where it takes more than widening."""
        old = whole[self.where]
        shape = [size for axis, size in enumerate(old.shape) if axis not in self.single]
        try:
            return value.to(whole.dtype).expand(shape).reshape(old.shape)
        except (AttributeError, RuntimeError):
            return None

    def along(self, axis: int) -> slice:
        """Which entries of an axis are replaced."""
        return self.where[axis] if axis < len(self.where) else slice(None)


def indexed(node: Node) -> Indexed | None:
    """What a node replaces, where it replaces entries that are named by numbers and slices in steps of one."""
    if not isinstance(node, Op) or node.name != "setitem" or node.kwargs:
        return None
    of, index, value = node.args
    parts = index if isinstance(index, tuple) else (index,)
    if not isinstance(of, Ref) or not isinstance(value, Ref) or not all(_plain(part) for part in parts):
        return None
    where = tuple(_entry(part) for part in parts)
    single = tuple(axis for axis, part in enumerate(parts) if isinstance(part, int))
    return Indexed(of.index, where, value.index, single)


def by_position(differs: Tensor, axis: int) -> Tensor:
    """Truth values by entry as truth values by position."""
    others = [number for number in range(differs.ndim) if number != axis]
    return differs.any(others[0]) if len(others) == 1 else differs.movedim(axis, 0).flatten(1).any(1)


def _plain(part: Any) -> bool:
    if isinstance(part, Slice):
        ends = (part.start, part.stop)
        return part.step is None and all(end is None or type(end) is int for end in ends)
    return type(part) is int


def _entry(part: int | Slice) -> slice:
    if isinstance(part, Slice):
        return slice(part.start, part.stop)
    return slice(part, part + 1 if part != -1 else None)
