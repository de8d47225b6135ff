"""The list of nodes being written while a with-block runs."""

import math
from collections.abc import Callable
from itertools import count
from typing import Any

import torch

from interpose.errors import TraceError
from interpose.graph.arguments import Dots, Dtype, Ref, Slice, Steps
from interpose.graph.nodes import Apply, Constant, Node, Op, Read, Weight, references
from interpose.trace.lines import user_line
from interpose.trace.proxy import Proxy
from interpose.trace.weights import buffer_at, weight_paths

_PLAIN = frozenset([int, float, str, bool, complex, type(None), Ref])
"""What stands in a graph as it is."""


class Recorder:
    """Collects nodes and the tensors they capture.

    Attributes:
        nodes: what was recorded.
        constants: the captured tensors by name.
        steps: the steps of a generation that are open now, and `world` its world.
        stepped: the nodes that have one value a step, with their world and steps.
        likes: the shapes of what functions of the program give, by node, as tensors without data.
        open: more may be recorded.
        failed: the block raised.
        model: as given.

    Args:
        model: the model, whose own weights are named and not copied.
    """

    def __init__(self, model: Any) -> None:
        """Start empty."""
        self.nodes: list[Node] = []
        self.constants: dict[str, torch.Tensor] = {}
        self.likes: dict[int, torch.Tensor] = {}
        self.steps: Steps | None = None
        self.world: str | None = None
        self.stepped: dict[int, tuple[str | None, Steps]] = {}
        self.open = True
        self.failed = False
        self.model = model
        self._weights: dict[int, str] | None = None
        self._captured: dict[tuple[int, int], Ref] = {}
        self._kept: list[torch.Tensor] = []

    def add(self, node: Node) -> Ref:
        """Append a node, marked with the user's line; asked for by a function of interpose that the user has called."""
        object.__setattr__(node, "at", node.at or user_line(ours=2))
        self.nodes.append(node)
        if self.steps is not None and not self.steps.one:
            of_steps = isinstance(node, Read) or any(ref.index in self.stepped for ref in references(node))
            if of_steps:
                self.stepped[len(self.nodes) - 1] = self.world, self.steps
        return Ref(len(self.nodes) - 1)

    def op(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ref:
        """Append an operation; its arguments are encoded first."""
        encoded = tuple(self.encode(arg) for arg in args)
        named = tuple((key, self.encode(value)) for key, value in kwargs.items())
        return self.add(Op(name=name, args=encoded, kwargs=named))

    def apply(self, function: Callable[..., Any], values: tuple[Any, ...], like: torch.Tensor | None) -> Ref:
        """Append a call of a function of the program, with the shape of what it gives if that is known.

        Raises:
            TraceError: the function cannot be called or hashed, or a value cannot be part of a graph.
        """
        try:
            hash(function)
        except TypeError:
            usable = False
        else:
            usable = callable(function)
        if not usable:
            raise TraceError(
                f"{user_line()}: t.apply cannot take a {type(function).__name__} as its function; give a function, or "
                "wrap it in a lambda."
            )
        ref = self.add(Apply(function=function, args=tuple(self.encode(value) for value in values)))
        if like is not None:
            self.likes[ref.index] = like
        return ref

    def encode(self, value: Any) -> Any:
        """An argument as plain data: proxies become references, tensors constants or weights.

        Raises:
            TraceError: the value cannot be part of a graph.
        """
        kind = type(value)
        if kind in _PLAIN:
            # One and the same NaN, so that equal programs are equal graphs.
            return math.nan if kind is float and value != value else value
        if kind is tuple:
            return tuple([self.encode(item) for item in value])
        if kind is slice:
            return Slice(self.encode(value.start), self.encode(value.stop), self.encode(value.step))
        if isinstance(value, Proxy):
            return value.ref_in(self)
        if isinstance(value, torch.Tensor):
            return self.constant(value)
        match value:
            case None | bool() | int() | float() | complex() | str() | Ref():
                return value
            case tuple() | list() | torch.Size():
                return tuple(self.encode(item) for item in value)
            case torch.dtype():
                return Dtype(str(value).removeprefix("torch."))
        return self._encode_other(value)

    def _encode_other(self, value: Any) -> Any:
        if value is Ellipsis:
            return Dots()
        if isinstance(value, torch.device):
            return str(value)
        if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
            return value.item()
        if hasattr(value, "__array__"):
            return self.constant(torch.as_tensor(value))
        raise TraceError(
            f"{user_line()}: a {type(value).__name__} cannot be part of an intervention; use tensors, numbers or text."
        )

    def _path_of(self, tensor: torch.Tensor) -> str | None:
        """The path of one of the model's own parameters or buffers; None for any other tensor."""
        if isinstance(tensor, torch.nn.Parameter):
            if self._weights is None:
                self._weights = weight_paths(self.model.network)
            return self._weights.get(id(tensor))
        return buffer_at(self.model.network, tensor)

    def constant(self, tensor: torch.Tensor) -> Ref:
        """A captured tensor: one of the model's weights, or a snapshot of its present value."""
        path = self._path_of(tensor)
        if path is not None:
            return self._once((id(tensor), -1), tensor, lambda: Weight(path=path))

        def capture() -> Node:
            name = next(name for number in count(len(self.constants)) if (name := f"c{number}") not in self.constants)
            self.constants[name] = (tensor.detach() if tensor.requires_grad else tensor).clone()
            return Constant(ref=name)

        # Inference tensors have no version, so that each capture is of its own.
        version = len(self._captured) if tensor.is_inference() else tensor._version
        return self._once((id(tensor), version), tensor, capture)

    def _once(self, key: tuple[int, int], tensor: torch.Tensor, make: Callable[[], Node]) -> Ref:
        if key not in self._captured:
            self._kept.append(tensor)  # so that its id is not given to another
            self._captured[key] = self.add(make())
        return self._captured[key]
