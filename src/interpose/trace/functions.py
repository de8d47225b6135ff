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
    "__rand__": "bitwise_and",
    "__ror__": "bitwise_or",
    "__rxor__": "bitwise_xor",
    "__xor__": "bitwise_xor",
    "less_equal": "le",
    "greater_equal": "ge",
    "not_equal": "ne",
    "fix": "trunc",
}


_DIFFERENT = {
    torch: "svd qr solve layer_norm group_norm rms_norm embedding dropout kl_div binary_cross_entropy_with_logits",
    torch.Tensor: "svd qr solve where",
    torch.linalg: "norm diagonal cross",
    torch.nn.functional: "unfold",
}
"""Functions that share an operation's name and not its arguments or its meaning."""


def _names() -> dict[Any, str]:
    found: dict[Any, str] = {}
    aliases = {alias: name for alias, name in _OPERATORS.items() if name in OPS}
    aliases |= {name: name for name in OPS}
    for alias, name in aliases.items():
        for holder in _HOLDERS:
            function = getattr(holder, alias, None)
            of_holder = holder is torch.Tensor or not alias.startswith("__")  # every Python object has an __eq__
            if callable(function) and of_holder and alias not in _DIFFERENT.get(holder, "").split():
                found[function] = name
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
FILLS = ("zero_", "fill_", "copy_")
"""Functions that change their first argument whatever it was."""
IN_PLACE |= {
    torch.Tensor.__itruediv__: "div",
    torch.Tensor.__ifloordiv__: "floor_divide",
    torch.Tensor.__imod__: "remainder",
    torch.Tensor.__ipow__: "pow",
    torch.Tensor.__iand__: "bitwise_and",
    torch.Tensor.__ior__: "bitwise_or",
    torch.Tensor.__ixor__: "bitwise_xor",
    torch.Tensor.__setitem__: "setitem",
    **{getattr(torch.Tensor, name): name for name in FILLS},
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
    "__complex__": _NO_VALUE.format("complex(...) cannot be taken. Save it and write complex(saved) after the block."),
    "tolist": _NO_VALUE.format(".tolist() cannot be taken. Save it and write saved.tolist() after the block."),
    "numpy": _NO_VALUE.format(".numpy() cannot be taken. Save it and write saved.numpy() after the block."),
    "__array__": _NO_VALUE.format("numpy cannot take it. Save it and use numpy after the block, or use torch here."),
    "__contains__": _NO_VALUE.format("`in` cannot look into it. Compare with == and .any(), saved."),
    "backward": "the block has no .backward(). Write g = ip.grad(y, x) for the gradient of y with respect to x.",
    "requires_grad_": "a value of the block is made differentiable by asking for it: g = ip.grad(y, x).",
    "cuda": "values of the block are made where the model is. Save it and move it after the block.",
    "register_hook": "there are no hooks inside a block; read the site, or ask ip.grad(y, x).",
}
"""Functions with an answer of their own."""

_QUESTIONS = """
is_floating_point is_complex is_signed is_contiguous is_same_size dim ndimension numel nelement size stride element_size
storage_offset __len__
"""
ANSWERS: frozenset[Any] = frozenset(
    getattr(holder, name) for name in _QUESTIONS.split() for holder in (torch, torch.Tensor) if hasattr(holder, name)
)
"""Questions that the shape and the type answer."""

_ARITHMETIC = ["add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "floordiv", "mod", "pow", "matmul"]
_REFLECTED: dict[str, Callable[[Any, Any], Any]] = {
    "__rtruediv__": lambda self, other: (
        torch.div(other, self) if isinstance(other, torch.Tensor) else self.reciprocal() * other
    ),
    "__rfloordiv__": lambda self, other: torch.floor_divide(torch.as_tensor(other), self),
    "__rmod__": lambda self, other: torch.remainder(torch.as_tensor(other), self),
    "__rpow__": lambda self, other: torch.pow(other, self),
    "__rmatmul__": lambda self, other: torch.matmul(other, self),
}
"""Operators that torch defines by functions of its own, which would arrive under names that say less."""


def give_operators(kind: type) -> None:
    """Give a kind of tensor operators that take arrays of numpy too, on either side."""
    for name in _ARITHMETIC:
        setattr(kind, f"__{name}__", _with_arrays(getattr(torch.Tensor, f"__{name}__")))
    for name, function in _REFLECTED.items():
        setattr(kind, name, _with_arrays(function))


def _with_arrays(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def operator(self: Any, other: Any) -> Any:
        is_array = hasattr(other, "__array__") and not isinstance(other, torch.Tensor)
        return function(self, torch.as_tensor(other) if is_array else other)

    return operator
