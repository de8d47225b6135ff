"""Operations by name: the allow-list of `graph/ops.py` bound to torch once, at import."""

from collections.abc import Callable
from typing import Any

import torch

from interpose.errors import GraphError
from interpose.graph.arguments import Dots, Dtype, Ref, Slice
from interpose.graph.nodes import (
    Apply,
    Call,
    Constant,
    Input,
    Log,
    Node,
    Op,
    Save,
    Weight,
    references,
)
from interpose.graph.ops import DTYPES as NUMBER_TYPES, NETWORK, OPS


def getitem(base: Any, where: Any) -> Any:
    """Index a tensor, or take an element of a structure that a module returned."""
    if isinstance(base, torch.Tensor):
        return base[where]
    key = where[0] if isinstance(where, tuple) and len(where) == 1 else where
    return base[key]


def setitem(base: Any, where: Any, value: Any) -> Any:
    """A copy of `base` with `value` at an index; the base is left alone."""
    if isinstance(base, torch.Tensor):
        changed = base.clone()
        other = isinstance(value, torch.Tensor) and value.dtype != base.dtype
        changed[where] = value.to(base.dtype) if other else value
        return changed
    key = where[0] if isinstance(where, tuple) and len(where) == 1 else where
    if isinstance(base, dict):
        key = list(base)[key] if isinstance(key, int) else key
        return type(base)(**{**base, key: value})
    elements: Any = list(base)
    elements[key] = value
    return type(base)(elements) if type(base) in (tuple, list) else type(base)(*elements)


def _bind(name: str) -> Callable[..., Any]:
    for holder in (_FIRST.get(name, torch), torch, torch.Tensor, torch.nn.functional, torch.linalg):
        found = getattr(holder, name, None)
        if callable(found):
            return found
    raise GraphError(f"This torch ({torch.__version__}) has no operation named {name!r}.")


_FIRST: dict[str, Any] = dict.fromkeys(NETWORK - {"softmax", "log_softmax"}, torch.nn.functional)
_FIRST |= dict.fromkeys(("svd", "qr", "eigh", "solve", "pinv", "cholesky"), torch.linalg)
# The methods take sizes and axes one by one or together; the functions only together.
_FIRST |= dict.fromkeys(("permute", "reshape", "flip", "tile", "movedim", "unflatten"), torch.Tensor)
"""Where a name is looked up first, since it means something a little different in torch itself."""

_OURS: dict[str, Callable[..., Any]] = {
    "getitem": getitem,
    "setitem": setitem,
    "mT": lambda value: value.transpose(-1, -2),
    "mH": torch.Tensor.adjoint,
    "T": lambda value: value.T,
}

FUNCTIONS: dict[str, Callable[..., Any]] = {name: _OURS.get(name) or _bind(name) for name in OPS}
"""What runs for each name."""

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in NUMBER_TYPES}
"""Number types by name."""

_FRESH = frozenset(
    [
        "setitem",
        "add",
        "sub",
        "rsub",
        "mul",
        "div",
        "where",
        "lerp",
        "addcmul",
        "addcdiv",
        "clamp",
        "neg",
        "abs",
        "pow",
        "exp",
        "sqrt",
        "square",
        "matmul",
        "sum",
        "mean",
        "zeros_like",
        "ones_like",
        "full_like",
        "masked_fill",
        "index_put",
        "stack",
    ]
)
"""Operations whose result is always memory of its own."""

Lookup = Callable[[int], Any]


def is_fresh(node: Node) -> bool:
    """Whether nothing else can hold the memory of what a node gives."""
    return isinstance(node, Op) and node.name in _FRESH


def evaluator(node: Node) -> Callable[[Any], Any] | None:
    """How a node is made from other nodes' values, in a run (`interpose.engine.values.Values`).

    Args:
        node: any node.

    Returns:
        a function of the run; None for reads, writes, skips and gradients, which happen elsewhere. Found once.
    """
    if "_evaluator" not in node.__dict__:
        object.__setattr__(node, "_evaluator", _evaluator(node))
    return node.__dict__["_evaluator"]


def _evaluator(node: Node) -> Callable[[Any], Any] | None:
    match node:
        case Op():
            function, args = FUNCTIONS[node.name], resolver(node.args)
            if not node.kwargs:
                return lambda run: function(*args(run.get))
            names, named = [name for name, _ in node.kwargs], resolver(tuple(value for _, value in node.kwargs))
            return lambda run: function(*args(run.get), **dict(zip(names, named(run.get), strict=True)))
        case Call(module=path):
            args = resolver(node.args)
            return lambda run: run.call(path, args(run.get))
        case Apply(function=function):
            args = resolver(node.args)
            return lambda run: function(*args(run.get))
        case Save(name=name, value=Ref(index=index)):
            return lambda run: run.save(name, index)
        case Log(label=label, value=Ref(index=index)):
            return lambda run: run.log(label, index)
        case Weight(path=path):
            return lambda run: run.weight(path)
        case Constant(ref=name) | Input(name=name):
            return lambda run: run.given(name)
    return None


def resolver(value: Any) -> Callable[[Lookup], Any]:
    """How an argument of a node becomes what torch is called with.

    Args:
        value: an argument of a node, or all of them.

    Returns:
        a function that replaces every reference inside by its value, given how to look a node's value up.
    """
    if next(references(value), None) is None:
        plain = _plain(value)
        return lambda _: plain
    match value:
        case Ref(index=index):
            return lambda lookup: lookup(index)
        case tuple():
            parts = [resolver(item) for item in value]
            return lambda lookup: tuple([part(lookup) for part in parts])
        case Slice(start=start, stop=stop, step=step):
            bounds = [resolver(bound) for bound in (start, stop, step)]
            return lambda lookup: slice(*[bound(lookup) for bound in bounds])
    raise GraphError(f"A {type(value).__name__} cannot be an argument of a node.")


def _plain(value: Any) -> Any:
    match value:
        case tuple():
            return tuple(_plain(item) for item in value)
        case Slice(start=start, stop=stop, step=step):
            return slice(start, stop, step)
        case Dots():
            return Ellipsis
        case Dtype(name=name):
            return DTYPES[name]
    return value


def named(node: Node) -> str:
    """What a node does, for an error."""
    match node:
        case Op(name=name):
            return name
        case Apply(function=function):
            return getattr(function, "__name__", type(function).__name__)
    return f"calling {getattr(node, 'module', type(node).__name__)}"
