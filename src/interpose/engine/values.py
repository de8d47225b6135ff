"""The values of one run: each is made as soon as it can be and dropped after its last use."""

from typing import Any

import torch
from torch import Tensor

from interpose.engine.ops import FUNCTIONS, resolve
from interpose.engine.plan import Plan
from interpose.errors import InterposeError, RunError
from interpose.graph.feed import Feed
from interpose.graph.nodes import Call, Constant, Gradient, Input, Node, Op, Save, Weight, Write


class Values:
    """The values of a plan's nodes in one run.

    Args:
        plan: what runs.
        feed: the tensors of its inputs and constants.
        network: the stock network, for weights and calls of its modules.
        device: where tensors of the feed are moved to.
    """

    def __init__(self, plan: Plan, feed: Feed, network: torch.nn.Module, device: torch.device) -> None:
        """Make everything that waits for no world."""
        self.plan, self.feed, self.network, self.device = plan, feed, network, device
        self.saved: dict[str, Any] = {}
        self._known: dict[int, Any] = {}
        self._waits = dict(plan.waits)
        self._uses_left = {index: len(users) for index, users in plan.uses.items()}
        self._derived: set[int] = set()
        with torch.set_grad_enabled(bool(plan.derivatives)):
            for index in plan.sources:
                self.set(index, self._made(index))

    def known(self, index: int) -> bool:
        """Whether a node's value has been made, and not yet dropped."""
        return index in self._known

    def get(self, index: int) -> Any:
        """The value of a node that has been made."""
        return self._known[index]

    def take(self, index: int, of: int) -> Any:
        """The value of node `of`, for its user `index`, which then needs it no more."""
        value = self._known[of]
        self._release(of)
        return value

    def set(self, index: int, value: Any) -> None:
        """Record a node's value and make everything that now can be.

        Args:
            index: the node.
            value: its value; already a target's leaf where something is differentiated by it.
        """
        stack = [(index, value)]
        while stack:
            index, value = stack.pop()
            self._known[index] = value
            stack.extend(reversed(self._ready_after(index)))
            if not self._uses_left.get(index, 0):
                self._known.pop(index, None)

    def as_target(self, index: int, value: Any) -> Any:
        """The value as something can be differentiated by it: a leaf, or an alias of its own; else unchanged.

        Raises:
            RunError: the value is not a floating-point tensor.
        """
        if index not in self.plan.targets:
            return value
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise RunError(
                f"{self.plan.graph.nodes[index].at}: a gradient was asked with respect to something that is not a floating-point tensor."
            )
        return value.view_as(value) if value.requires_grad else value.detach().requires_grad_(True)

    def _ready_after(self, index: int) -> list[tuple[int, Any]]:
        ready: list[tuple[int, Any]] = []
        for user in self.plan.uses.get(index, ()):
            self._waits[user] -= 1
            if self._waits[user] == 0 and not isinstance(self.plan.graph.nodes[user], Write | Gradient):
                ready.append((user, self._made(user)))
        if index in self.plan.targets or index in self.plan.derivatives:
            for number in self.plan.derivatives:
                if number not in self._derived and self._differentiable(number):
                    ready.extend(self._derive(number))
        return ready

    def _made(self, index: int) -> Any:
        node = self.plan.graph.nodes[index]
        try:
            return self.as_target(index, self._evaluate(node))
        except InterposeError:
            raise
        except Exception as error:
            what = node.name if isinstance(node, Op) else f"calling {getattr(node, 'module', type(node).__name__)}"
            raise RunError(f"{node.at}: {what} failed: {error}") from error
        finally:
            for used in self.plan.depends[index]:
                self._release(used)

    def _evaluate(self, node: Node) -> Any:
        match node:
            case Op():
                named = {name: resolve(value, self.get) for name, value in node.kwargs}
                return FUNCTIONS[node.name](*resolve(node.args, self.get), **named)
            case Call():
                return self.network.get_submodule(node.module)(*(self.get(ref.index) for ref in node.args))
            case Save():
                self.saved[node.name] = detach(self.get(node.value.index))
                return None
            case Weight():
                return self._weight(node)
            case Constant(ref=name) | Input(name=name):
                if name not in self.feed.tensors:
                    raise RunError(f"The feed has no tensor named {name!r}; it has {sorted(self.feed.tensors)}.")
                value = self.feed.tensors[name]
                return value.to(self.device) if isinstance(value, Tensor) else value
        raise RunError(f"A {type(node).__name__} node cannot be evaluated by itself.")

    def _weight(self, node: Weight) -> Tensor:
        for find in (self.network.get_parameter, self.network.get_buffer):
            try:
                return find(node.path)
            except AttributeError:
                continue
        raise RunError(f"{node.at}: the model has no weight at {node.path!r}.")

    def _release(self, index: int) -> None:
        self._uses_left[index] -= 1
        if self._uses_left[index] == 0:
            self._known.pop(index, None)

    def _differentiable(self, number: int) -> bool:
        return number in self._known and all(self.wrt(i) in self._known for i in self.plan.derivatives[number])

    def wrt(self, index: int) -> int:
        """The node that gradient node `index` differentiates by."""
        node = self.plan.graph.nodes[index]
        assert isinstance(node, Gradient)
        return node.wrt.index

    def _derive(self, number: int) -> list[tuple[int, Any]]:
        """All gradients of one number, in one backward pass."""
        indices = self.plan.derivatives[number]
        self._derived.add(number)
        value, at = self._known[number], self.plan.graph.nodes[indices[0]].at
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise RunError(f"{at}: ip.grad needs a single number; sum or index its first argument.")
        unconnected = f"{at}: the number does not depend on the value it is differentiated by."
        if not value.requires_grad:
            raise RunError(unconnected)
        again = len(self._derived) < len(self.plan.derivatives)
        targets = [self._known[self.wrt(index)] for index in indices]
        found = torch.autograd.grad(value.sum(), targets, retain_graph=again, allow_unused=True)
        if any(gradient is None for gradient in found):
            raise RunError(unconnected)
        for index in indices:
            for used in self.plan.depends[index]:
                self._release(used)
        return [(i, self.as_target(i, gradient)) for i, gradient in zip(indices, found, strict=True)]


def detach(value: Any) -> Any:
    """The value without its derivative; structures keep their kind."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, dict):
        return type(value)(**{name: detach(item) for name, item in value.items()})
    if isinstance(value, tuple | list):
        items = [detach(item) for item in value]
        return type(value)(items) if type(value) in (tuple, list) else type(value)(*items)
    return value

