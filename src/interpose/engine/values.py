"""The values of one run: each is made as soon as it can be and dropped after its last use."""

import sys
from typing import Any, final

import torch
from torch import Tensor

from interpose.engine.counts import Counts
from interpose.engine.matrices import weight_at
from interpose.engine.ops import is_fresh, named
from interpose.engine.plan import Plan
from interpose.engine.saved import Overwritten, Saved
from interpose.engine.structures import copied, described
from interpose.errors import InterposeError, RunError
from interpose.graph.feed import Feed
from interpose.graph.nodes import Gradient, Weight


@final
class Values:
    """The values of a plan's nodes in one run.

    Attributes:
        keep: keeps what was found at a site, which nothing else uses, under some names.

    Args:
        plan: what runs.
        feed: the tensors of its inputs and constants.
        network: the stock network, for weights and calls of its modules.
        device: where tensors of the feed are moved to.
        copies: keep copies of what is read, since the network changes tensors in place.
        counts: told of every derivative through the network.
    """

    def __init__(
        self, plan: Plan, feed: Feed, network: torch.nn.Module, device: torch.device, copies: bool, counts: Counts
    ) -> None:
        """Nothing is made yet."""
        self.plan, self.feed, self.network, self.device, self.copies = plan, feed, network, device, copies
        self._counts = counts
        self._known: dict[int, Any] = {}
        self._versions: dict[int, int] = {}
        self._waits = list(plan.waits)
        self._left = list(plan.counts)
        self._derived: set[int] = set()
        self._versioned = not torch.is_inference_mode_enabled()
        self._saved = Saved(self._versioned)
        self.keep = self._saved.keep
        self._held: frozenset[int] = frozenset()
        self._step: int | None = None

    def start(self, weights: frozenset[int]) -> None:
        """Make everything that waits for no world.

        Args:
            weights: the memory of the network's weights, which nothing that is saved may share.
        """
        self._saved.weights = weights
        for index in self.plan.sources:
            value = self._made(index)
            if isinstance(value, Tensor):
                self._saved.not_ours(value)
            self._set_all(index, value)

    def begin_step(self, step: int) -> None:
        """Make room for the values of one step of a generation; values that all steps share stay.

        Args:
            step: which step.
        """
        plan, stepped = self.plan, self.plan.stepped
        if step == 0:
            self._held = frozenset(used for index in stepped for used in plan.depends[index] if used not in stepped)
        self._step = step
        for index, steps in stepped.items():
            self._forget(index)
            waits = [used for used in plan.depends[index] if used in stepped or used not in self._known]
            # One that is not of this step waits for ever.
            self._waits[index] = len(waits) if step in steps else -1
            self._left[index] = plan.counts[index]

    def end_step(self, step: int) -> None:
        """Check that everything of this step has been made.

        Raises:
            RunError: a value rests on one that is made at a later step.
        """
        for index, steps in self.plan.stepped.items():
            if step in steps and self.plan.evaluators[index] is not None and self._waits[index] > 0:
                raise RunError(
                    f"{self.plan.graph.nodes[index].at}: at step {step} this rests on a value that is made later. "
                    "Begin the steps after the one where that value is read."
                )

    def end_generation(self) -> None:
        """What is made from here on belongs to no step."""
        self._step = None

    def known(self, index: int) -> bool:
        """Whether a node's value has been made, and not yet dropped."""
        return index in self._known

    def get(self, index: int) -> Any:
        """The value of a node that has been made.

        Raises:
            Overwritten: the network has changed it since it was read.
        """
        value = self._known[index]
        if index in self._versions and value._version != self._versions[index]:
            raise Overwritten
        return value

    def read(self, index: int, value: Any) -> Any:
        """Record what was found at a site.

        Args:
            index: the node that reads it.
            value: what was found.

        Returns:
            what the network goes on with.
        """
        found = self.as_target(index, value)
        on = copied(found) if self.copies else found
        self._set_all(index, _gradient_edge(found) if index in self.plan.unread else found)
        return on

    def take(self, of: int) -> Any:
        """The value of a node for a write that uses it, as memory that the network may change."""
        value, only = self.get(of), self.plan.counts[of] == 1
        self._release(of)
        only = only and of not in self.plan.targets and of not in self._held
        if not isinstance(value, Tensor) or (only and is_fresh(self.plan.graph.nodes[of])):
            return value
        return value.clone()

    def finish(self) -> dict[str, Any]:
        """The saved values; raises Overwritten where the network has changed one of them since it was read."""
        return self._saved.finish()

    def save(self, name: str, index: int) -> None:
        """Keep a node's value under a name, without its derivative."""
        self._saved.keep((name,), self.get(index), index in self.plan.stepped)

    def log(self, label: str, index: int) -> None:
        """Say a value."""
        step = "" if self._step is None else f"step {self._step}, "
        sys.stdout.write(f"{step}{label}: {described(self.get(index))}\n")

    def call(self, path: str, args: tuple[Any, ...]) -> Any:
        """Apply one of the network's own modules.

        Raises:
            Overwritten: it has changed its argument, which may be the network's own activation.
        """
        args = copied(args) if self.copies else args
        before = [value._version for value in args] if self._versioned else []
        result = self.network.get_submodule(path)(*args)
        if not self.copies and self._versioned and before != [value._version for value in args]:
            raise Overwritten
        return result

    def weight(self, path: str) -> Tensor:
        """A parameter or buffer of the network."""
        return weight_at(self.network, path)

    def given(self, name: str) -> Any:
        """A tensor of the feed, on the model's device."""
        if name not in self.feed.tensors:
            raise RunError(f"The feed has no tensor named {name!r}; it has {sorted(self.feed.tensors)}.")
        value = self.feed.tensors[name]
        if not isinstance(value, Tensor) or value.device == self.device:
            return value  # to() looks through all its arguments before it does nothing
        return value.to(self.device)

    def as_target(self, index: int, value: Any) -> Any:
        """The value as something can be differentiated by it: a leaf, or an alias of its own; else unchanged.

        Raises:
            RunError: the value is not a floating-point tensor.
        """
        if index not in self.plan.targets:
            return value
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise RunError(
                f"{self.plan.graph.nodes[index].at}: a gradient was asked with respect to something that is not a "
                "floating-point tensor."
            )
        if isinstance(self.plan.graph.nodes[index], Weight):
            return value  # the network uses the weight itself, and no alias of it
        return value.view_as(value) if value.requires_grad else value.detach().requires_grad_(True)

    def _set_all(self, index: int, value: Any) -> None:
        """Record a value, and make everything that now can be; a stack, since programs may be long chains."""
        todo: list[int] = []
        self._set(index, value, todo)
        while todo:
            index = todo.pop()
            self._set(index, self._made(index), todo)

    def _set(self, index: int, value: Any, todo: list[int]) -> None:
        self._known[index] = value
        if self._versioned and isinstance(value, Tensor):
            self._versions[index] = value._version
        waits, evaluators = self._waits, self.plan.evaluators
        for user in reversed(self.plan.uses[index]):
            waits[user] -= 1
            if not waits[user] and evaluators[user] is not None:
                todo.append(user)
        if self.plan.derivatives and (index in self.plan.targets or index in self.plan.derivatives):
            for number in self.plan.derivatives:
                if number not in self._derived and self._differentiable(number):
                    for gradient, found in self._derive(number):
                        self._set(gradient, found, todo)
        if not self._left[index]:
            self._forget(index)

    def _made(self, index: int) -> Any:
        evaluate = self.plan.evaluators[index]
        assert evaluate is not None
        try:
            if not self.plan.derivatives:
                return evaluate(self)
            with torch.set_grad_enabled(index in self.plan.tainted):
                return self.as_target(index, evaluate(self))
        except (InterposeError, Overwritten):
            raise
        except Exception as error:
            node = self.plan.graph.nodes[index]
            raise RunError(f"{node.at}: {named(node)} failed: {error}") from error
        finally:
            for used in self.plan.depends[index]:
                self._release(used)

    def _release(self, index: int) -> None:
        if index in self._held:
            return
        self._left[index] -= 1
        if not self._left[index]:
            self._forget(index)

    def _forget(self, index: int) -> None:
        self._known.pop(index, None)
        self._versions.pop(index, None)

    def _differentiable(self, number: int) -> bool:
        return number in self._known and all(self._wrt(i) in self._known for i in self.plan.derivatives[number])

    def _wrt(self, index: int) -> int:
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
        self._check_frozen(indices)
        if not value.requires_grad:
            raise RunError(f"{at}: the number does not depend on the value it is differentiated by.")
        if number in self.plan.passes:
            self._counts.one_backward()
        found = self._backward(value, indices, at)
        for index, gradient in zip(indices, found, strict=True):
            if gradient is None:
                at = self.plan.graph.nodes[index].at
                raise RunError(f"{at}: the number does not depend on the value it is differentiated by.")
            for used in self.plan.depends[index]:
                self._release(used)
        return [(index, self.as_target(index, gradient)) for index, gradient in zip(indices, found, strict=True)]

    def _check_frozen(self, indices: tuple[int, ...]) -> None:
        for index in indices:
            target = self._known[self._wrt(index)]
            if isinstance(target, Tensor) and not target.requires_grad:
                raise RunError(
                    f"{self.plan.graph.nodes[index].at}: this weight is frozen, so nothing is differentiated by it. "
                    "Call network.requires_grad_() first."
                )

    def _backward(self, value: Tensor, indices: tuple[int, ...], at: str) -> tuple[Tensor | None, ...]:
        again = len(self._derived) < len(self.plan.derivatives)
        higher = not self.plan.higher.isdisjoint(indices)
        targets = [self._known[self._wrt(index)] for index in indices]
        kept, one = again or higher, torch.ones_like(value)  # where no world runs, no sum is differentiated
        try:
            return torch.autograd.grad(value, targets, one, kept, create_graph=higher, allow_unused=True)
        except Exception as error:
            raise RunError(f"{at}: the gradient failed: {error}") from error


def _gradient_edge(value: Tensor) -> Any:
    """Where a tensor stands in the derivative: all that a derivative by it needs, without its numbers."""
    return value if value.is_leaf else torch.autograd.graph.get_gradient_edge(value)
