"""What stands inside a node: references to other nodes, indices, number types, steps of a generation."""

from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True)
class Ref:
    """The value of an earlier node."""

    index: int


@final
@dataclass(frozen=True)
class Slice:
    """A Python slice; its parts are integers, None or a `Ref`."""

    start: Any = None
    stop: Any = None
    step: Any = None


@final
@dataclass(frozen=True)
class Dots:
    """An ellipsis in an index."""


@final
@dataclass(frozen=True)
class Dtype:
    """A number type by name, such as `float32`."""

    name: str


@final
@dataclass(frozen=True)
class Steps:
    """Which steps of a generation a node is about; step 0 is the prompt, each later one a new token.

    Attributes:
        start: the first.
        stop: the one after the last; None for all that there are.
        one: it is about a single step, so that its value is one value and not one a step.
    """

    start: int = 0
    stop: int | None = None
    one: bool = False

    def __contains__(self, step: int) -> bool:
        """Whether a step is among them."""
        return self.start <= step and (self.stop is None or step < self.stop)

    def meets(self, other: "Steps | None") -> bool:
        """Whether a step is among both."""
        if other is None:
            return False
        first = max(self.start, other.start)
        return first in self and first in other

    def __str__(self) -> str:
        """As the code that opens them."""
        if self.one:
            return f"step({self.start})"
        return "steps()" if (self.start, self.stop) == (0, None) else f"steps({self.start}, {self.stop})"


def literals(value: Any) -> list[str]:
    """Every number inside an argument, as text."""
    found: list[str] = []
    stack = [value]
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind is tuple:
            stack += item
        elif kind is Slice:
            stack += (item.start, item.stop, item.step)
        elif kind in _NUMBERS or (kind not in _OTHERS and isinstance(item, bool | int | float | complex)):
            found.append(repr(item))
    return found


_NUMBERS = frozenset([bool, int, float, complex])
_OTHERS = frozenset([Ref, str, type(None), Dots, Dtype])
