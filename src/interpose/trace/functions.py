"""Which torch function is which operation of the allow-list, and what is refused with what to write instead."""

from collections.abc import Callable
from typing import Any

import torch

from interpose.graph.ops import OPS

_HOLDERS = (torch, torch.Tensor, torch.nn.functional, torch.linalg, torch.special)

_OPERATORS = {
    "__add__": "add",
    "__radd__": "add",
    "__mul__": "mul",
    "__rmul__": "mul",
    "__sub__": "sub",
    "__rsub__": "rsub",
    "__truediv__": "div",
    "__div__": "div",
    "__floordiv__": "floor_divide",
    "__mod__": "remainder",
    "__pow__": "pow",
    "__matmul__": "matmul",
    "__neg__": "neg",
    "__abs__": "abs",
    "__invert__": "bitwise_not",
    "__and__": "bitwise_and",
    "__or__": "bitwise_or",
    "__eq__": "eq",
    "__ne__": "ne",
    "__lt__": "lt",
    "__le__": "le",
    "__gt__": "gt",
    "__ge__": "ge",
    "absolute": "abs",
    "negative": "neg",
    "multiply": "mul",
    "subtract": "sub",
    "divide": "div",
    "concat": "cat",
    "concatenate": "cat",
    "greater": "gt",
    "less": "lt",
    "clip": "clamp",
    "relu_": "relu",
    "boolean_dispatch": "",
}


def _names() -> dict[Any, str]:
    found: dict[Any, str] = {}
    aliases = {alias: name for alias, name in _OPERATORS.items() if name in OPS}
    for name in OPS:
        aliases.setdefault(name, name)
    for alias, name in aliases.items():
        for holder in _HOLDERS:
            function = getattr(holder, alias, None)
            if callable(function):
                found[function] = name
    # What these public functions call inside, where the call that arrives is the inner one.
    for inner, name in ((torch._C._nn.linear, "linear"), (torch._C._nn.gelu, "gelu"), (torch.conv1d, "conv1d")):
        found[inner] = name
    return found


NAMES: dict[Any, str] = _names()
"""The operation of each torch function."""

IN_PLACE: dict[Any, str] = {
    function: name
    for name in OPS
    for alias in (f"{name}_", f"__i{name}__")
    for holder in (torch, torch.Tensor, torch.nn.functional)
    if callable(function := getattr(holder, alias, None))
}
"""The operation of each function that changes its first argument."""
IN_PLACE |= {
    torch.Tensor.__itruediv__: "div",
    torch.Tensor.__ifloordiv__: "floor_divide",
    torch.Tensor.__imod__: "remainder",
    torch.Tensor.__ipow__: "pow",
}

PROPERTIES = {"mT": "mT", "mH": "mH", "T": "T", "H": "adjoint"}
"""Properties that give another tensor."""

_NO_VALUE = "a value inside a block has no number yet, so {}"
REFUSED: dict[str, str] = {
    "__bool__": _NO_VALUE.format(
        "`if` and `while` cannot look at it. Use torch.where(condition, a, b), or save it and decide after the block."
    ),
    "__float__": _NO_VALUE.format("float(...) cannot be taken. Save it and write float(saved) after the block."),
    "__int__": _NO_VALUE.format("int(...) cannot be taken. Save it and write int(saved) after the block."),
    "__index__": _NO_VALUE.format("it cannot index a list. Save it, or index a tensor of the block by it."),
    "item": _NO_VALUE.format(".item() cannot be taken. Save it and write saved.item() after the block."),
    "tolist": _NO_VALUE.format(".tolist() cannot be taken. Save it and write saved.tolist() after the block."),
    "numpy": _NO_VALUE.format(".numpy() cannot be taken. Save it and write saved.numpy() after the block."),
    "__array__": _NO_VALUE.format("numpy cannot take it. Save it and use numpy after the block, or use torch here."),
    "__contains__": _NO_VALUE.format("`in` cannot look into it. Compare with == and .any(), saved."),
    "backward": "the block has no .backward(). Write g = ip.grad(y, x) for the gradient of y with respect to x.",
    "requires_grad_": "a value of the block is made differentiable by asking for it: g = ip.grad(y, x).",
    "cpu": "values of the block live where the model is. Save it and write saved.cpu() after the block.",
    "cuda": "values of the block live where the model is. Save it and move it after the block.",
    "register_hook": "there are no hooks inside a block; read the site, or ask ip.grad(y, x).",
}
"""Functions with an answer of their own."""

BOOLS: dict[Any, Callable[..., Any]] = {
    torch.is_tensor: lambda value: True,
    torch.Tensor.is_floating_point: lambda value: value.dtype.is_floating_point,
    torch.is_floating_point: lambda value: value.dtype.is_floating_point,
    torch.Tensor.is_complex: lambda value: value.dtype.is_complex,
    torch.Tensor.dim: lambda value: len(value.shape),
    torch.Tensor.ndimension: lambda value: len(value.shape),
    torch.Tensor.numel: lambda value: value.shape.numel(),
    torch.Tensor.nelement: lambda value: value.shape.numel(),
    torch.Tensor.size: lambda value, *axis: value.shape[axis[0]] if axis else value.shape,
    torch.Tensor.__len__: lambda value: value.shape[0],
    torch.Tensor.__hash__: id,
    torch.Tensor.is_contiguous: lambda value, *how: True,
    torch.Tensor.get_device: lambda value: -1,
}
"""Questions that need no number."""


def fill_in_place(record: Callable[..., Any], trace: Any, name: str, target: Any, args: tuple[Any, ...]) -> Any:
    """What `zero_`, `fill_` and `copy_` make of a value, as an operation that changes nothing in place."""
    if name == "zero_":
        return record(trace, "zeros_like", torch.zeros_like, (target,), {})
    if name == "fill_":
        zeros = record(trace, "zeros_like", torch.zeros_like, (target,), {})
        return record(trace, "add", torch.add, (zeros, args[1]), {})
    zeros = record(trace, "zeros_like", torch.zeros_like, (target,), {})
    return record(trace, "add", torch.add, (zeros, args[1]), {})
