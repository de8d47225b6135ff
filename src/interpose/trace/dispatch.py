"""What a block does when torch is asked to do something to one of its values."""

from collections.abc import Callable
from typing import Any

import torch

from interpose.errors import TraceError
from interpose.trace.functions import ANSWERS, IN_PLACE, NAMES, PROPERTIES, REFUSED
from interpose.trace.lines import user_line
from interpose.trace.operations import index, record
from interpose.trace.proxy import Proxy, bare, known_shape
from interpose.trace.writing import in_place


def answer(proxy: Proxy, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Record a call of torch, or refuse it.

    Args:
        proxy: the first value of the block among its arguments.
        func: the function or method of torch.
        args: its arguments.
        kwargs: its named arguments.

    Returns:
        what stands for its result.

    Raises:
        TraceError: it needs a number, or is not on the list; the message says what to write instead.
        ShapeError: the arguments do not fit each other.
    """
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        return _property(proxy, func)
    proxy.check_open()
    if func is torch.Tensor.cpu:
        return record(proxy._trace, "to", torch.Tensor.to, (proxy, "cpu"), {})
    if name in REFUSED:
        raise TraceError(f"{user_line()}: {REFUSED[name]}")
    if func is torch.Tensor.__getitem__:
        return index(proxy._trace, args[0], args[1])
    if func in ANSWERS:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*bare(args), **bare(kwargs))
    if func in IN_PLACE:
        return in_place(proxy._trace, func, args, kwargs)
    if func not in NAMES:
        raise TraceError(
            f"{user_line()}: {name} cannot be part of an intervention. Save the value and use it after the block, "
            "or write it with operations of torch that interpose knows (interpose.graph.ops.OPS)."
        )
    if kwargs.get("out") is not None:
        raise TraceError(f"{user_line()}: {name}(..., out=...) would write into another tensor; use what it returns.")
    if kwargs.pop("inplace", False):
        return in_place(proxy._trace, func, args, kwargs)
    kwargs.pop("_stacklevel", None)  # where F.softmax would place a warning
    return record(proxy._trace, NAMES[func], func, args, kwargs)


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
