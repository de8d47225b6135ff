"""Recording an operation or an index, and finding the shape of its result."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from interpose.trace.lines import try_shapes
from interpose.trace.proxy import Origin, Proxy, bare, proxies


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
    columns, where_then = trace.worlds.place_index(base, where)
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
    vars(made)["_seen"] = base._ref
    return made


def one_index(where: Any) -> Any:
    """An index in which a list is one index and not several."""
    if isinstance(where, list):
        return (where,)
    return where


def indexed_shape(shape: torch.Tensor, where: Any) -> torch.Tensor:
    """What an index gives of a tensor without data."""
    key = _key(where)
    if key is None:
        return _find_indexed_shape(shape, where)
    return _plain_index(shape.shape, shape.dtype, key)


def _key(where: Any) -> Any:
    """An index of whole numbers, slices and ellipses as something that can be looked up; else None."""
    parts = where if type(where) is tuple else (where,)
    found = []
    for part in parts:
        if type(part) is slice:
            bounds = part.start, part.stop, part.step
            if any(bound is not None and type(bound) is not int for bound in bounds):
                return None
            found.append(bounds)
        elif type(part) is int or part is None or part is Ellipsis:
            found.append(part)
        else:
            return None
    return tuple(found)


@lru_cache(maxsize=4096)
def _plain_index(shape: torch.Size, dtype: torch.dtype, key: tuple[Any, ...]) -> torch.Tensor:
    where = tuple(slice(*part) if type(part) is tuple else part for part in key)
    return _find_indexed_shape(torch.empty(shape, dtype=dtype, device="meta"), where)


def _find_indexed_shape(shape: torch.Tensor, where: Any) -> torch.Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return try_shapes(lambda: shape[bare(where, keep=True)], (), {}, "this index")
