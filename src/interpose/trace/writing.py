"""Writing in place: how a changed value reaches its site."""

from collections.abc import Callable
from typing import Any

import torch

from interpose.engine.ops import FUNCTIONS
from interpose.errors import ShapeError, TraceError
from interpose.graph.arguments import Ref
from interpose.graph.sites import Site
from interpose.trace.functions import FILLS, IN_PLACE, NAMES
from interpose.trace.lines import try_shapes, user_line
from interpose.trace.operations import indexed, indexed_shape, one_index, record
from interpose.trace.proxy import Proxy, bare


def in_place(trace: Any, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Record an operation that changes its first argument.

    Args:
        trace: the block.
        func: the function of torch.
        args: what it was called with.
        kwargs: what it was called with by name.

    Returns:
        the first argument, which now stands for the changed value.

    Raises:
        TraceError: the first argument is no site and no index of one, or a plain tensor.
        ShapeError: the result does not fit where it is written.
    """
    target, name = args[0], getattr(func, "__name__", str(func))
    _check_target(target, name)
    if func is torch.Tensor.__setitem__:
        return set_index(trace, target, args[1], args[2])
    refresh(target)
    operation = IN_PLACE.get(func) or NAMES[func]
    if operation in FILLS:
        value = 0 if operation == "zero_" else args[1]
        zeros = record(trace, "zeros_like", torch.zeros_like, (target,), {})
        new = record(trace, "add", torch.add, (zeros, value), {})
    else:
        new = record(trace, operation, FUNCTIONS[operation], args, kwargs)
    _write_through(target, _fitted(target, new, name)._ref)
    return target


def _check_target(target: Any, name: str) -> None:
    if not isinstance(target, Proxy):
        raise TraceError(
            f"{user_line()}: a value of the block is written into a plain tensor ({name}), where it would be lost. "
            "Build the tensor from values of the block (torch.stack, torch.cat, torch.where) instead."
        )
    if target._origin is None:
        raise TraceError(
            f"{user_line()}: {name} changes a value that is no site and no index of one, which would change "
            "nothing in the "
            "model. Write `site = ...` (for example model.layers[3].output = new)."
        )


def set_index(trace: Any, target: Proxy, where: Any, value: Any) -> None:
    """Record a write to an index of a site, or of an index of one.

    Raises:
        TraceError: the target is neither.
        ShapeError: the value does not fit.
    """
    _check_target(target, "__setitem__")
    if isinstance(value, Proxy) and _is_there_already(target, where, value):
        return  # `x[i] += v` hands the changed part back to the place it has already been written to
    columns, where_then = trace.worlds.place_index(target, where)
    if columns is not None:
        target = indexed(target, columns, columns)
    where_then = one_index(where_then)
    refresh(target)
    if target._shape_of is not None:
        _check_fits(target._shape_of, where_then, value)
    _write_through(target, trace.recorder.op("setitem", (target, where_then, value), {}))


def _is_there_already(target: Proxy, where: Any, value: Proxy) -> bool:
    origin = value._origin
    if origin is None or origin.written is not where:
        return False
    while origin is not None and origin.parent is not None and vars(value)["_seen"] == origin.parent._ref:
        if origin.parent is target:
            return True
        value, origin = origin.parent, origin.parent._origin
    return False


def _check_fits(shape: torch.Tensor, where: Any, value: Any) -> None:
    there = indexed_shape(shape, where)
    if isinstance(value, Proxy) and value._shape_of is None:
        return
    if not isinstance(value, torch.Tensor):
        return
    given = value.shape
    if len(given) > len(there.shape) or any(
        has not in (1, wants) for has, wants in zip(reversed(given), reversed(there.shape), strict=False)
    ):
        with torch._C.DisableTorchFunctionSubclass():
            try_shapes(lambda: torch.broadcast_to(bare(value), there.shape), (), {}, "the value written here")


def _fitted(target: Proxy, new: Proxy, name: str) -> Proxy:
    """The new value in the type of the old one.

    Raises:
        ShapeError: it has another shape.
    """
    if target._shape_of is None or new._shape_of is None:
        return new
    old, shape = target._shape_of, new._shape_of
    if old.shape != shape.shape:
        raise ShapeError(
            f"{user_line()}: {name} does not fit: it would turn shape {tuple(old.shape)} into "
            f"{tuple(shape.shape)}, and a value "
            "keeps its shape when it is changed in place."
        )
    if old.dtype == shape.dtype:
        return new
    return record(new._trace, "to", torch.Tensor.to, (new, old.dtype), {})


def refresh(target: Proxy) -> None:
    """Bring a value that is about to be changed in place up to what its site holds by now.

    Raises:
        TraceError: the site has been given another value since.
    """
    trace, origin = target._trace, target._origin
    if origin.parent is None:  # type: ignore[union-attr]
        now = trace.held.in_place(origin)
        if now is not None:
            vars(target)["_ref"] = now
        return
    refresh(origin.parent)  # type: ignore[union-attr]
    if vars(target)["_seen"] != origin.parent._ref:  # type: ignore[union-attr]
        vars(target)["_ref"] = trace.recorder.op("getitem", (origin.parent, origin.index), {})  # type: ignore[union-attr]


def _write_through(target: Proxy, new: Ref) -> None:
    """Let a changed value reach its site: through the indices it was taken by."""
    trace = target._trace
    while True:
        origin = target._origin
        assert origin is not None
        vars(target)["_ref"] = new
        if origin.site is not None:
            trace.note_write(origin, new, in_place=True)
            return
        assert origin.parent is not None
        new = trace.recorder.op("setitem", (origin.parent, origin.index, target), {})
        vars(target)["_seen"] = new
        target = origin.parent


def site_value(trace: Any, value: Any, dtype: torch.dtype) -> Proxy:
    """What a user assigns to a site, as a value of the block.

    Args:
        trace: the block.
        value: a tensor or a number.
        dtype: the type that a number is given.

    Raises:
        TraceError: it is something else.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = torch.tensor(float(value), dtype=dtype)
    if not isinstance(value, torch.Tensor):
        raise TraceError(f"{user_line()}: a site takes a tensor or a number, not a {type(value).__name__}.")
    return Proxy.make(trace, trace.recorder.constant(value), torch.empty_like(value, device="meta"))


_BEHIND = {"attn.k": "attn.key", "attn.v": "attn.value"}


def check_site(site: Site, shape: torch.Tensor, value: torch.Tensor, fixed: str) -> None:
    """Check that a site can take a value.

    Args:
        site: a standard site.
        shape: a tensor of its shape.
        value: a tensor of the value's shape.
        fixed: why keys or values cannot be given one a query head here; empty where they can.

    Raises:
        ShapeError: it cannot.
    """
    try:
        fits = torch.broadcast_shapes(value.shape, shape.shape) == shape.shape
    except RuntimeError:
        fits = False
    shared = site.local in ("attn.k", "attn.v", "attn.key", "attn.value") and value.ndim == 4
    if fits or (shared and not fixed):
        return
    raise ShapeError(
        f"{user_line()}: {site} has shape {tuple(shape.shape)} and cannot take a value of shape {tuple(value.shape)}."
        + (f" This family {fixed}; to give each query head its own, write {_BEHIND[site.local]}." if shared else "")
    )
