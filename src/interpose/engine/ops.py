"""Operations by name: the allow-list of `graph/ops.py` bound to torch once, at import."""

from collections.abc import Callable
from typing import Any

import torch

from interpose.errors import GraphError
from interpose.graph.nodes import Dots, Dtype, Ref, Slice
from interpose.graph.ops import OPS


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
        changed[where] = value.to(changed.dtype) if isinstance(value, torch.Tensor) else value
        return changed
    key = where[0] if isinstance(where, tuple) and len(where) == 1 else where
    if isinstance(base, dict):
        return type(base)(**{**base, key: value})
    elements = list(base)
    elements[key] = value
    return type(base)(elements)


def _bind(name: str) -> Callable[..., Any]:
    for holder in (torch, torch.nn.functional, torch.linalg, torch.Tensor):
        found = getattr(holder, name, None)
        if found is not None:
            return found
    raise GraphError(f"This torch ({torch.__version__}) has no operation named {name!r}.")


def _transpose_last(value: torch.Tensor) -> torch.Tensor:
    return value.transpose(-1, -2)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: _bind(name) for name in OPS - {"getitem", "setitem", "mT", "mH", "T", "one_hot", "bool", "long", "int", "half"}
}
"""What runs for each name."""
FUNCTIONS |= {
    "getitem": getitem,
    "setitem": setitem,
    "mT": _transpose_last,
    "mH": torch.Tensor.adjoint,
    "T": lambda value: value.T,
    "one_hot": torch.nn.functional.one_hot,
    "bool": torch.Tensor.bool,
    "long": torch.Tensor.long,
    "int": torch.Tensor.int,
    "half": torch.Tensor.half,
    "float": torch.Tensor.float,
    "double": torch.Tensor.double,
    "bfloat16": torch.Tensor.bfloat16,
    "layer_norm": torch.nn.functional.layer_norm,
    "normalize": torch.nn.functional.normalize,
    "softmax": torch.nn.functional.softmax,
    "log_softmax": torch.nn.functional.log_softmax,
    "embedding": torch.nn.functional.embedding,
    "group_norm": torch.nn.functional.group_norm,
    "rms_norm": torch.nn.functional.rms_norm,
    "norm": torch.norm,
    # The methods take sizes and axes one by one or together; the functions only together.
    **{name: getattr(torch.Tensor, name) for name in ("permute", "reshape", "flip", "tile", "movedim", "unflatten")},
}


def resolve(value: Any, lookup: Callable[[int], Any]) -> Any:
    """Replace every reference inside an argument by its value.

    Args:
        value: an argument of a node.
        lookup: the value of a node, by index.

    Returns:
        what torch is to be called with.
    """
    match value:
        case Ref(index=index):
            return lookup(index)
        case tuple():
            return tuple(resolve(item, lookup) for item in value)
        case Slice(start=start, stop=stop, step=step):
            return slice(resolve(start, lookup), resolve(stop, lookup), resolve(step, lookup))
        case Dots():
            return Ellipsis
        case Dtype(name=name):
            return DTYPES[name]
    return value


DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool),
        *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.complex64, torch.complex128),
    )
}
"""Number types by name."""
