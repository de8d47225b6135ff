"""Proxies: stand-ins for values that do not exist yet.

A proxy is a `torch.Tensor` without data, so that torch functions, operators, indexing, einops and type checkers take it.
What is done to it is recorded. After the block a saved proxy has become the plain tensor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from interpose.errors import TraceError
from interpose.graph.nodes import Ref, Save
from interpose.graph.sites import Site
from interpose.trace.functions import BOOLS, IN_PLACE, NAMES, PROPERTIES, REFUSED, fill_in_place
from interpose.trace.recorder import Recorder, try_shapes, user_line


@dataclass(frozen=True)
class Origin:
    """Where a proxy may be written through to.

    Attributes:
        site: for a site's own value, the site.
        world: its world.
        parent: for a basic index of another proxy, that proxy.
        index: the index.
    """

    site: Site | None = None
    world: str = ""
    parent: "Proxy | None" = None
    index: Any = None


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
        proxies = list(_proxies((args, kwargs)))
        if not proxies:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        proxy = proxies[0]
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            return _property(proxy, func)
        proxy._check_open()
        if name in REFUSED:
            raise TraceError(f"{user_line()}: {REFUSED[name]}")
        if func is torch.Tensor.__setitem__ or func in IN_PLACE or name in ("zero_", "fill_", "copy_"):
            return _in_place(func, name, args, kwargs)
        if func is torch.Tensor.__getitem__:
            return _index(args[0], args[1])
        if func in BOOLS:
            return BOOLS[func](*args)
        if func not in NAMES:
            raise TraceError(
                f"{user_line()}: {name} cannot be part of an intervention. Save the value and use it after the block, "
                "or write it with operations of torch that interpose knows (interpose.graph.ops.OPS)."
            )
        return record(proxy._trace, NAMES[func], func, args, kwargs)

    def save(self, name: str | None = None) -> "Proxy":
        """Keep the value: after the block this variable is a plain tensor, and `t.saved[name]` has it too."""
        self._check_open()
        self._trace.note_save(self, name)
        return self

    def ref_in(self, recorder: Recorder) -> Ref:
        """The node of this value, if it belongs to the block that is being recorded.

        Raises:
            TraceError: it belongs to another block.
        """
        self._check_open()
        if self._trace.recorder is not recorder:
            raise TraceError(
                f"{user_line()}: this value belongs to another block (another model's, or an earlier one). "
                "Save it there and use the saved tensor here."
            )
        return self._ref

    def _check_open(self) -> None:
        trace = self.__dict__.get("_trace")
        if trace is not None and not trace.recorder.open:
            raise TraceError(
                f"{user_line()}: this value was not kept when its block ended. Add .save() to it inside the block "
                f"(it was made at {trace.recorder.nodes[self._ref.index].at})."
            )

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        """Shape and origin; there are no numbers to show yet."""
        shape = "shape not known yet" if self._shape_of is None else f"shape {tuple(self._shape_of.shape)}"
        return f"Proxy({shape}, made at {self._trace.recorder.nodes[self._ref.index].at})"

    def __format__(self, spec: str) -> str:
        """As `repr`; a format for numbers is refused."""
        if spec:
            raise TraceError(f"{user_line()}: this value has no number yet; save it and format it after the block.")
        return repr(self)

    def __iter__(self) -> Any:
        """Go through the first axis."""
        return iter([self[index] for index in range(len(self))])

    def __deepcopy__(self, memo: Any) -> Any:
        """Refused: there is nothing to copy yet."""
        raise TraceError(f"{user_line()}: a value inside a block cannot be deep-copied; use .clone().")


def known_shape(proxy: Proxy) -> torch.Tensor:
    """A tensor without data of the proxy's shape; where it is not known yet, the block finds out."""
    if proxy._shape_of is None:
        proxy.__dict__["_shape_of"] = proxy._trace.find_shape(proxy._ref)
    return proxy._shape_of  # type: ignore[return-value]


def record(trace: Any, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Record an operation; gives a proxy, or as many as the operation has results."""
    ref = trace.recorder.op(name, args, kwargs)
    found = list(_proxies((args, kwargs)))
    several = name in _SEVERAL
    if any(proxy._shape_of is None for proxy in found) and not several:
        return Proxy.make(trace, ref, None)
    bare_args, bare_kwargs = _bare(args), _bare(kwargs)
    with torch._C.DisableTorchFunctionSubclass():
        shapes = try_shapes(function, bare_args, bare_kwargs, name)
    return _result(trace, ref, shapes)


_SEVERAL = frozenset("chunk split unbind topk sort max min median mode kthvalue cummax cummin std_mean var_mean".split())


def _result(trace: Any, ref: Ref, shapes: Any) -> Any:
    if isinstance(shapes, torch.Tensor):
        return Proxy.make(trace, ref, shapes)
    parts = [
        Proxy.make(trace, trace.recorder.op("getitem", (ref, (index,)), {}), part) for index, part in enumerate(shapes)
    ]
    return type(shapes)(parts)


def _property(proxy: Proxy, func: Any) -> Any:
    owner = getattr(func, "__self__", None)
    name = getattr(owner, "__name__", "")
    if name == "device":
        return proxy._trace.device
    if name in ("grad", "data", "real", "imag", "grad_fn", "_grad"):
        proxy._check_open()
        raise TraceError(f"{user_line()}: .{name} of a value inside a block is not there; for gradients use ip.grad(y, x).")
    if name in PROPERTIES:
        proxy._check_open()
        return record(proxy._trace, PROPERTIES[name], func, (proxy,), {})
    if name in ("requires_grad", "is_leaf", "names", "layout", "is_sparse", "is_quantized", "is_meta", "is_cuda", "is_cpu"):
        return {"requires_grad": False, "is_leaf": True, "is_meta": False}.get(name, False)
    proxy._check_open()
    with torch._C.DisableTorchFunctionSubclass():
        return func(known_shape(proxy))


def _index(proxy: Any, index: Any) -> Any:
    if not isinstance(proxy, Proxy):
        raise TraceError(f"{user_line()}: a plain tensor was indexed by a value of the block; use torch.take_along_dim or gather.")
    index = proxy._trace.place_index(proxy, index)
    ref = proxy._trace.recorder.op("getitem", (proxy, index), {})
    origin = Origin(parent=proxy, index=index) if proxy._origin is not None else None
    if proxy._shape_of is None:
        return Proxy.make(proxy._trace, ref, None, origin)
    with torch._C.DisableTorchFunctionSubclass():
        shape = try_shapes(lambda base, where: base[where], (known_shape(proxy), _bare(index)), {}, "this index")
    return Proxy.make(proxy._trace, ref, shape, origin)


def _in_place(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    target = args[0]
    if not isinstance(target, Proxy):
        raise TraceError(
            f"{user_line()}: a value of the block is written into a plain tensor ({name}), where it would be lost. "
            "Build the tensor from values of the block (torch.stack, torch.cat, torch.where) instead."
        )
    if target._origin is None:
        raise TraceError(
            f"{user_line()}: {name} changes a value that is no site and no index of one, which would change nothing in the "
            "model. Write `site = ...` (for example model.layers[3].output = new)."
        )
    trace = target._trace
    if func is torch.Tensor.__setitem__:
        index = trace.place_index(target, args[1])
        value = args[2]
        if target._shape_of is not None:
            _check_fits(target, index, value)
        new = trace.recorder.op("setitem", (target, index, value), {})
    elif name in ("zero_", "fill_", "copy_"):
        new = fill_in_place(record, trace, name, target, args)._ref
    else:
        new = record(trace, IN_PLACE[func], _functional(IN_PLACE[func]), args, kwargs)._ref
    write_through(target, new)
    return target


def _check_fits(target: Proxy, index: Any, value: Any) -> None:
    with torch._C.DisableTorchFunctionSubclass():
        there = try_shapes(lambda base, where: base[where], (known_shape(target), _bare(index)), {}, "this index")
        if isinstance(value, torch.Tensor):
            shape = known_shape(value) if isinstance(value, Proxy) and value._shape_of is not None else value
            if not isinstance(value, Proxy) or value._shape_of is not None:
                try_shapes(lambda: torch.broadcast_to(_bare(shape), there.shape), (), {}, "the value written here")


def write_through(target: Proxy, new: Ref) -> None:
    """Let a changed value reach its site: through the indices it was taken by."""
    trace = target._trace
    while True:
        origin = target._origin
        assert origin is not None
        target.__dict__["_ref"] = new
        if origin.site is not None:
            trace.note_write(origin.site, origin.world, new)
            return
        assert origin.parent is not None
        new = trace.recorder.op("setitem", (origin.parent, origin.index, target), {})
        target = origin.parent


def _functional(name: str) -> Callable[..., Any]:
    from interpose.engine.ops import FUNCTIONS

    return FUNCTIONS[name]


def _proxies(value: Any) -> Any:
    if isinstance(value, Proxy):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _proxies(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _proxies(item)
    elif isinstance(value, slice):
        yield from _proxies((value.start, value.stop, value.step))


def _bare(value: Any) -> Any:
    if isinstance(value, Proxy):
        return known_shape(value)
    if isinstance(value, torch.Tensor):
        return value if value.is_meta else torch.empty_like(value, device="meta") if value.ndim else value
    if isinstance(value, dict):
        return {name: _bare(item) for name, item in value.items()}
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        return type(value)([_bare(item) for item in value]) if type(value) in (tuple, list) else value
    return value


def become(proxy: Proxy, value: Any) -> None:
    """Turn a saved proxy into what it stood for, in place, wherever it is held.

    Args:
        proxy: the stand-in.
        value: the tensor, or the structure that the model returned there.
    """
    if not isinstance(value, torch.Tensor):
        proxy.__dict__.clear()
        proxy.__dict__["value"] = value
        proxy.__class__ = Kept
        return
    proxy.__dict__.clear()
    plain = value.detach() if type(value) is torch.Tensor else torch.Tensor(value)
    torch.utils.swap_tensors(proxy, plain.view_as(plain))


class Kept(Proxy):
    """A structure that a module returned, kept as it was: read its elements by index, key or attribute."""

    value: Any

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refused: this is no tensor."""
        raise TraceError(f"{user_line()}: this is a {type(args[0].__dict__['value']).__name__}, no tensor; take an element of it.")

    def __getattribute__(self, name: str) -> Any:
        """An attribute of the structure."""
        if name.startswith("__") or name == "value":
            return object.__getattribute__(self, name)
        return getattr(object.__getattribute__(self, "__dict__")["value"], name)

    def __getitem__(self, key: Any) -> Any:
        """An element of the structure."""
        return self.__dict__["value"][key]

    def __len__(self) -> int:
        """How many elements it has."""
        return len(self.__dict__["value"])

    def __iter__(self) -> Any:
        """Its elements."""
        return iter(self.__dict__["value"])

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        """As the structure itself."""
        return repr(self.__dict__["value"])


__all__ = ["Kept", "Origin", "Proxy", "Save", "become", "known_shape", "record", "write_through"]
