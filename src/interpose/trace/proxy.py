"""Proxies: stand-ins for values that do not exist yet.

A proxy is a `torch.Tensor` without data, so that torch functions, operators, indexing, einops and type checkers take it.
What is done to it is recorded. After the block a saved proxy has become the plain tensor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from interpose.errors import TraceError
from interpose.graph.nodes import Ref
from interpose.graph.sites import Site
from interpose.trace.functions import ANSWERS, IN_PLACE, NAMES, PROPERTIES, REFUSED, with_operators
from interpose.trace.recorder import Recorder, try_shapes, user_line


@dataclass(frozen=True)
class Origin:
    """Where a proxy may be written through to.

    Attributes:
        site: for a site's own value, the site.
        world: its world.
        generation: how often the site had been given another value when this one was read.
        parent: for a basic index of another proxy, that proxy.
        index: the index.
        written: the index as the user wrote it, where that is another.
    """

    site: Site | None = None
    world: str = ""
    generation: int = 0
    parent: "Proxy | None" = None
    index: Any = None
    written: Any = None


@with_operators
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
        bare = torch.empty(0, device="meta") if like is None else like
        made = torch.Tensor._make_subclass(Proxy, bare)
        made.__dict__.update(_trace=trace, _ref=ref, _shape_of=like, _origin=origin)
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record what torch was asked to do."""
        kwargs = kwargs or {}
        proxy = next(proxies((args, kwargs)), None)
        if proxy is None:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            return _property(proxy, func)
        proxy.check_open()
        if name in REFUSED:
            raise TraceError(f"{user_line()}: {REFUSED[name]}")
        if func is torch.Tensor.__getitem__:
            return index(proxy._trace, args[0], args[1])
        if func in IN_PLACE or kwargs.pop("inplace", False):
            from interpose.trace.writing import in_place

            return in_place(proxy._trace, func, args, kwargs)
        if func in ANSWERS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*bare(args), **bare(kwargs))
        if func not in NAMES:
            raise TraceError(
                f"{user_line()}: {name} cannot be part of an intervention. Save the value and use it after the block, "
                "or write it with operations of torch that interpose knows (interpose.graph.ops.OPS)."
            )
        if kwargs.get("out") is not None:
            raise TraceError(
                f"{user_line()}: {name}(..., out=...) would write into another tensor; use what it returns."
            )
        kwargs.pop("_stacklevel", None)  # where F.softmax would place a warning
        return record(proxy._trace, NAMES[func], func, args, kwargs)

    def save(self, name: str | None = None) -> "Proxy":
        """Keep the value: after the block this variable is a plain tensor, and `t.saved[name]` has it too."""
        self.check_open()
        self._trace.note_save(self, name)
        return self

    def ref_in(self, recorder: Recorder) -> Ref:
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
        return index(self._trace, self, name)

    def __deepcopy__(self, memo: Any) -> Any:
        """Refused: there is nothing to copy yet."""
        raise TraceError(f"{user_line()}: a value inside a block cannot be deep-copied; use .clone().")


def known_shape(value: torch.Tensor) -> torch.Tensor:
    """A tensor without data of the value's shape; where it is not known yet, the block finds out."""
    if not isinstance(value, Proxy):
        return bare(value)
    if value._shape_of is None:
        value.__dict__["_shape_of"] = value._trace.find_shape(value._ref)
    return value._shape_of  # type: ignore[return-value]


def record(trace: Any, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Record an operation; gives a proxy, or as many as the operation has results."""
    ref = trace.recorder.op(name, args, kwargs)
    if name not in _SEVERAL and any(proxy._shape_of is None for proxy in proxies((args, kwargs))):
        return Proxy.make(trace, ref, None)
    bare_args, bare_kwargs = bare(args), bare(kwargs)
    if name == "to":  # what has no data cannot be moved; where it is makes no difference to its shape
        bare_args = tuple("meta" if isinstance(arg, str) else arg for arg in bare_args)
        bare_kwargs.pop("device", None)
    with torch._C.DisableTorchFunctionSubclass():
        shapes = try_shapes(function, bare_args, bare_kwargs, name)
    if isinstance(shapes, torch.Tensor):
        return Proxy.make(trace, ref, shapes)
    parts = [Proxy.make(trace, trace.recorder.op("getitem", (ref, (at,)), {}), part) for at, part in enumerate(shapes)]
    return type(shapes)(parts)


_SEVERAL = frozenset(
    [
        "chunk",
        "split",
        "tensor_split",
        "unbind",
        "topk",
        "sort",
        "max",
        "min",
        "median",
        "mode",
        "kthvalue",
        "cummax",
        "cummin",
        "std_mean",
        "var_mean",
        "svd",
        "qr",
        "eigh",
    ]
)
"""Operations that may give several results, so that the shapes of their arguments must be known."""


def index(trace: Any, base: Any, where: Any) -> Any:
    """Record an index.

    Args:
        trace: the block.
        base: a value of the block, or a plain tensor that is indexed by one.
        where: what stands between the brackets.

    Returns:
        what is there; a basic index of a site can be written through to the site.
    """
    if not isinstance(base, Proxy):
        return record(trace, "getitem", torch.Tensor.__getitem__, (base, where), {})
    columns, where_then = trace.place_index(base, where)
    if columns is not None:
        base = indexed(base, columns, columns)
    return indexed(base, where_then, where)


def indexed(base: Proxy, where: Any, written: Any) -> Proxy:
    """Record one index of a value, as it stands.

    Args:
        base: the value.
        where: the index.
        written: the index as the user wrote it.
    """
    trace, where = base._trace, one_index(where)
    ref = trace.recorder.op("getitem", (base, where), {})
    origin = Origin(parent=base, index=where, written=written) if base._origin is not None else None
    shape = None if base._shape_of is None else indexed_shape(base._shape_of, where)
    made = Proxy.make(trace, ref, shape, origin)
    made.__dict__["_seen"] = base._ref
    return made


def one_index(where: Any) -> Any:
    """An index in which a list is one index and not several."""
    if isinstance(where, list):
        return (where,)
    return where


def indexed_shape(shape: torch.Tensor, where: Any) -> torch.Tensor:
    """What an index gives of a tensor without data."""
    with torch._C.DisableTorchFunctionSubclass():
        return try_shapes(lambda: shape[bare(where, keep=True)], (), {}, "this index")


def _property(proxy: Proxy, func: Any) -> Any:
    name = getattr(getattr(func, "__self__", None), "__name__", "")
    proxy.check_open()
    if name == "device":
        return proxy._trace.device
    if name in ("grad", "data", "real", "imag", "grad_fn", "_grad"):
        raise TraceError(
            f"{user_line()}: .{name} of a value inside a block is not there; for gradients use ip.grad(y, x)."
        )
    if name in PROPERTIES:
        return record(proxy._trace, PROPERTIES[name], func, (proxy,), {})
    if name in ("is_cuda", "is_cpu", "is_mps", "is_xpu", "is_meta"):
        return name == f"is_{proxy._trace.device.type}"
    with torch._C.DisableTorchFunctionSubclass():
        return func(known_shape(proxy))


def proxies(value: Any) -> Any:
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
