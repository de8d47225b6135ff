"""The nodes of a graph: an intervention as plain data.

A graph is a list of nodes over named worlds. A node refers to earlier ones by `Ref(index)`; program order is list
order. Everything here is frozen and hashable, so that a graph can be compared, cached, printed and sent.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, final

from interpose.errors import GraphError
from interpose.graph.arguments import Ref, Slice, Steps, literals
from interpose.graph.ops import OPS
from interpose.graph.sites import Site


@final
@dataclass(frozen=True)
class World:
    """One call of the model.

    Attributes:
        name: how the feed and the other nodes name it.
        base: the world it is a variation of, if it says so.
        at: the user's file:line that opened it, which takes no part in comparison.
    """

    name: str
    base: str | None = None
    at: str = field(default="", compare=False)


@dataclass(frozen=True, kw_only=True)
class Node:
    """One step of a graph; `at` is the user's file:line, which takes no part in comparison."""

    at: str = field(default="", compare=False)


@final
@dataclass(frozen=True)
class Read(Node):
    """The value at a site, after the writes above it in the program and before those below."""

    site: Site
    world: str
    steps: Steps | None = None


@final
@dataclass(frozen=True)
class Write(Node):
    """From here on the site carries `value`."""

    site: Site
    world: str
    value: Ref
    steps: Steps | None = None


@final
@dataclass(frozen=True)
class Skip(Node):
    """The module that makes a site is not run; the site carries `value`."""

    site: Site
    world: str
    value: Ref
    steps: Steps | None = None


@final
@dataclass(frozen=True)
class Stop(Node):
    """Nothing of the world is run after its last site; a generation ends with this step."""

    world: str
    steps: Steps | None = None


@final
@dataclass(frozen=True)
class Op(Node):
    """One operation of the allow-list in `graph/ops.py`.

    Attributes:
        name: which operation.
        args: its arguments; references, numbers, text, slices, tuples.
        kwargs: its named arguments.
        literals: its numbers as text, so that 1, 1.0 and True, equal in Python, are not taken for one another.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    literals: str = field(init=False, repr=False, default="")

    def __post_init__(self) -> None:
        """Write the numbers out."""
        object.__setattr__(self, "literals", " ".join(literals((self.args, self.kwargs))))


@final
@dataclass(frozen=True)
class Call(Node):
    """One of the model's own modules applied to a value."""

    module: str
    args: tuple[Ref, ...]


@final
@dataclass(frozen=True)
class Gradient(Node):
    """The derivative of a number with respect to a value."""

    of: Ref
    wrt: Ref


@final
@dataclass(frozen=True)
class Weight(Node):
    """A parameter or buffer of the model, by its path."""

    path: str


@final
@dataclass(frozen=True)
class Constant(Node):
    """A tensor captured from the program; the feed carries it under `ref`."""

    ref: str


@final
@dataclass(frozen=True)
class Input(Node):
    """A tensor that the feed gives anew at each run; `trainable` ones may be optimised."""

    name: str
    trainable: bool = False


@final
@dataclass(frozen=True)
class Save(Node):
    """Give a value back under a name; of a value of several steps, a list."""

    name: str
    value: Ref


@final
@dataclass(frozen=True)
class Log(Node):
    """Say a value, under a label, when it is made."""

    label: str
    value: Ref


@final
@dataclass(frozen=True)
class Apply(Node):
    """A function of the program, called with values when they are made; never sent elsewhere.

    Attributes:
        function: any callable that can be hashed.
        args: what it is called with.
        literals: its numbers as text, as of `Op`.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    literals: str = field(init=False, repr=False, default="")

    def __post_init__(self) -> None:
        """Write the numbers out."""
        object.__setattr__(self, "literals", " ".join(literals(self.args)))


@final
@dataclass(frozen=True)
class Graph:
    """An intervention: what is read, computed and written, in which worlds.

    Attributes:
        worlds: the calls of the model that it speaks of.
        nodes: its steps; a `Ref(i)` in node j means node i and needs i < j.

    Raises:
        GraphError: the nodes do not fit each other.
    """

    worlds: tuple[World, ...]
    nodes: tuple[Node, ...]

    @classmethod
    def recorded(cls, worlds: tuple[World, ...], nodes: tuple[Node, ...]) -> "Graph":
        """A graph whose nodes were checked one by one while they were written; it is not checked again."""
        made = object.__new__(cls)
        object.__setattr__(made, "worlds", worlds)
        object.__setattr__(made, "nodes", nodes)
        return made

    def __hash__(self) -> int:
        """Found once: a graph is looked up at each run."""
        found = self.__dict__.get("_hash")
        if found is None:
            found = hash((self.worlds, self.nodes))
            object.__setattr__(self, "_hash", found)
        return found

    def __post_init__(self) -> None:
        """Check that every name and reference means something."""
        names = [world.name for world in self.worlds]
        if len(set(names)) != len(names):
            raise GraphError(f"Two worlds have the same name: {names}. Give each world its own name.")
        saved: set[str] = set()
        for index, node in enumerate(self.nodes):
            self._check(index, node, names, saved)

    def _check(self, index: int, node: Node, names: list[str], saved: set[str]) -> None:
        for ref in references(node):
            if not 0 <= ref.index < index:
                raise GraphError(
                    f"Node {index} ({type(node).__name__}) refers to node {ref.index}, which is not above it."
                )
        if isinstance(node, Read | Write | Skip | Stop) and node.world not in names:
            raise GraphError(f"Node {index} speaks of the world {node.world!r}; the graph has {names}.")
        if isinstance(node, Op) and node.name not in OPS:
            raise GraphError(f"Node {index} asks for the operation {node.name!r}, which a graph cannot carry.")
        if isinstance(node, Save):
            if node.name in saved:
                raise GraphError(f"Two values are saved as {node.name!r}. Give each its own name.")
            saved.add(node.name)

    @property
    def structure(self) -> int:
        """A hash of everything but the user's line numbers; equal graphs share one plan."""
        return hash(self)

    def __str__(self) -> str:
        """The graph as a program; see `interpose.graph.show`."""
        from interpose.graph.show import show

        return show(self)

    def _repr_html_(self) -> str:
        from interpose.graph.show import show_html

        return show_html(self)


_HOLDERS: dict[type, tuple[str, ...]] = {
    Slice: ("start", "stop", "step"),
    Write: ("value",),
    Skip: ("value",),
    Save: ("value",),
    Log: ("value",),
    Apply: ("args",),
    Gradient: ("of", "wrt"),
    Call: ("args",),
    Op: ("args", "kwargs"),
}
"""Where references stand in what can hold any."""


def references(value: Any) -> Iterator[Ref]:
    """Every `Ref` inside a node or an argument, in order."""
    if type(value) is Ref:
        yield value
    elif type(value) is tuple:
        for item in value:
            yield from references(item)
    else:
        for name in _HOLDERS.get(type(value), ()):
            yield from references(getattr(value, name))


def renumbered(value: Any, number: Callable[[int], int]) -> Any:
    """A node or an argument whose references go to other nodes: from `i` to `number(i)`."""
    if type(value) is Ref:
        return Ref(number(value.index))
    if type(value) is tuple:
        return tuple([renumbered(item, number) for item in value])
    names = _HOLDERS.get(type(value), ())
    return replace(value, **{name: renumbered(getattr(value, name), number) for name in names}) if names else value
