"""Proxies: stand-ins for values that do not exist yet.

A proxy is a `torch.Tensor` without data, so that torch functions, operators, indexing, einops and type checkers take
it. What is done to it is recorded. After the block a saved proxy has become the plain tensor.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from interpose.errors import TraceError
from interpose.graph.arguments import Ref, Steps
from interpose.graph.sites import Site
from interpose.trace.functions import give_operators
from interpose.trace.lines import user_line


@dataclass(slots=True, eq=False)
class Origin:
    """Where a proxy may be written through to.

    Attributes:
        site: for a site's own value, the site.
        world: its world.
        steps: the steps of a generation that it was read at.
        generation: how often the site had been given another value when this one was read.
        parent: for a basic index of another proxy, that proxy.
        index: the index.
        written: the index as the user wrote it, where that is another.
    """

    site: Site | None = None
    world: str = ""
    steps: Steps | None = None
    generation: int = 0
    parent: "Proxy | None" = None
    index: Any = None
    written: Any = None


_NOTHING = torch.empty(0, device="meta")


class Proxy(torch.Tensor):
    """A value that will exist when the block has run; see the module's text."""

    _trace: Any
    _ref: Ref
    _shape_of: torch.Tensor | None
    _origin: Origin | None

    __array_ufunc__ = None  # numpy_array * proxy then reaches us instead of an array of objects

    @staticmethod
    def make(trace: Any, ref: Ref, like: torch.Tensor | None, origin: Origin | None = None) -> "Proxy":
        """A proxy for a node.

        Args:
            trace: the block it belongs to.
            ref: the node.
            like: a tensor without data of the same shape and type; None where the shape is not known yet.
            origin: where it may be written through to.
        """
        made = torch.Tensor._make_subclass(Proxy, _NOTHING if like is None else like)
        held: dict[str, Any] = vars(made)
        held["_trace"], held["_ref"], held["_shape_of"], held["_origin"] = trace, ref, like, origin
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record what torch was asked to do."""
        kwargs = kwargs or {}
        proxy = args[0] if args and type(args[0]) is Proxy else next(proxies((args, kwargs)), None)
        if proxy is None:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        return proxy._trace.answer(proxy, func, args, kwargs)

    def __getitem__(self, where: Any) -> Any:
        """An index, recorded; as torch would hand it over, without the way through torch."""
        self.check_open()
        return self._trace.index(self, where)

    def __setitem__(self, where: Any, value: Any) -> None:
        """A write to an index, recorded."""
        self._trace.set_index(self, where, value)

    def save(self, name: str | None = None) -> "Proxy":
        """Keep the value: after the block this variable is a plain tensor, and `t.saved[name]` has it too."""
        self.check_open()
        self._trace.note_save(self, name)
        return self

    def ref_in(self, recorder: Any) -> Ref:
        """The node of this value, if it belongs to the block that is being recorded.

        Raises:
            TraceError: it belongs to another block.
        """
        self.check_open()
        if self._trace.recorder is not recorder:
            raise TraceError(
                f"{user_line()}: this value belongs to another block (another model's, or an earlier one). "
                "Save it there and use the saved tensor here."
            )
        here = recorder.world, recorder.steps
        if recorder.stepped and recorder.stepped.get(self._ref.index, here) != here:
            steps = recorder.stepped[self._ref.index][1]
            raise TraceError(
                f"{user_line()}: this value has one value a step ({steps}), so it is used "
                "and saved inside that block. Save it there; after the block it is a list."
            )
        return self._ref

    def check_open(self) -> None:
        """Refuse a value that was not kept.

        Raises:
            TraceError: its block has ended.
        """
        trace = self.__dict__.get("_trace")
        if trace is not None and not trace.recorder.open:
            raise TraceError(f"{user_line()}: {self._gone()}")

    def _gone(self) -> str:
        made = f"(it was made at {self._trace.recorder.nodes[self._ref.index].at})"
        if self._trace.recorder.failed:
            return f"this value was never made, because its block raised an error {made}."
        return f"this value was not kept when its block ended. Add .save() to it inside the block {made}."

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        """Shape and origin; there are no numbers to show yet."""
        if not self._trace.recorder.open:
            return f"Proxy({self._gone()})"
        shape = "shape not known yet" if self._shape_of is None else f"shape {tuple(self._shape_of.shape)}"
        return f"Proxy({shape}, made at {self._trace.recorder.nodes[self._ref.index].at})"

    def __format__(self, spec: str) -> str:
        """As `repr`; a format for numbers is refused."""
        if spec:
            raise TraceError(f"{user_line()}: this value has no number yet; save it and format it after the block.")
        return repr(self)

    def __iter__(self) -> Any:
        """Go through the first axis."""
        return iter([self[at] for at in range(len(self))])

    __hash__ = object.__hash__

    def where(self, condition: Any, other: Any) -> Any:
        """This value where a condition holds, another elsewhere."""
        return torch.where(condition, self, other)

    def __getattr__(self, name: str) -> Any:
        """An element by name, where the value is a structure that a module returned (`model.output.logits`)."""
        if name.startswith("_") or self.__dict__.get("_trace") is None or self._shape_of is not None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.check_open()
        return self._trace.answer(self, torch.Tensor.__getitem__, (self, name), {})

    def __deepcopy__(self, memo: Any) -> Any:
        """Refused: there is nothing to copy yet."""
        raise TraceError(f"{user_line()}: a value inside a block cannot be deep-copied; use .clone().")


give_operators(Proxy)


def known_shape(value: torch.Tensor) -> torch.Tensor:
    """A tensor without data of the value's shape; where it is not known yet, the block finds out."""
    if not isinstance(value, Proxy):
        return bare(value)
    if value._shape_of is None:
        vars(value)["_shape_of"] = value._trace.find_shape(value._ref)
    return value._shape_of  # type: ignore[return-value]


def proxies(value: Any) -> Iterator["Proxy"]:
    """Every proxy inside an argument."""
    if isinstance(value, Proxy):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from proxies(item)
    elif isinstance(value, dict):
        yield from proxies(tuple(value.values()))
    elif isinstance(value, slice):
        yield from proxies((value.start, value.stop, value.step))


def bare(value: Any, keep: bool = False) -> Any:
    """An argument with every tensor replaced by one without data.

    Args:
        value: an argument.
        keep: leave plain tensors as they are: an index by a mask needs its data.
    """
    if isinstance(value, Proxy):
        return known_shape(value)
    if isinstance(value, torch.Tensor):
        return value if keep or value.is_meta else torch.empty_like(value, device="meta")
    if isinstance(value, torch.device):
        return torch.device("meta")
    if isinstance(value, dict):
        return {name: bare(item, keep) for name, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)([bare(item, keep) for item in value])
    if not isinstance(value, int | float | str) and hasattr(value, "__array__"):
        return bare(torch.as_tensor(value), keep)
    return value
