"""Values of a graph's nodes, made when they are asked for."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, final

from torch import Tensor

from interpose.engine.matrices import weight_at
from interpose.engine.memory import is_out_of_memory
from interpose.engine.needs import used_by
from interpose.engine.reach import Reach
from interpose.engine.resumed import Stock


class Misfit(Exception):
    """Something that the run by itself should complain of, in its own words."""


@final
class Making:
    """Values of a graph's nodes, made when they are asked for.

    Args:
        reach: the graph.
        tensors: what its inputs and constants are.
        stock: the network, for weights and calls of its modules.
        known: the values of nodes that have been made.
        left: how often each node is still used; one that is not used again is dropped. None to keep all.
    """

    def __init__(
        self,
        reach: Reach,
        tensors: Mapping[str, Any],
        stock: Stock,
        known: dict[int, Any],
        left: Counter[int] | None = None,
    ) -> None:
        """Make nothing yet."""
        self.known, self.saved = known, dict[str, Any]()
        self._reach, self._tensors, self._stock = reach, tensors, stock
        self._left, self._gone = left, set[int]()

    def make(self, indices: Iterable[int]) -> None:
        """Make nodes, in order, that have not been made.

        Raises:
            Misfit: an operation failed, or rests on what is made later in the pass.
        """
        for index in indices:
            if index in self.known or index in self._gone:
                continue
            evaluate = self._reach.evaluators[index]
            if evaluate is None:
                raise Misfit("a value is made later in the same pass")
            try:
                self.known[index] = evaluate(self)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                raise Misfit(str(error)) from error
            self.drop(index)

    def drop(self, index: int) -> None:
        """Drop what a node has used and nothing else will."""
        if self._left is None:
            return
        for used in used_by(self._reach.graph.nodes[index]):
            self._left[used] -= 1
            if self._left[used] <= 0:
                self.known.pop(used, None)
                self._gone.add(used)

    def get(self, index: int) -> Any:
        """The value of a node that has been made."""
        return self.known[index]

    def save(self, name: str, index: int) -> None:
        """Keep a value under a name."""
        self.saved[name] = self.known[index]

    def call(self, path: str, args: tuple[Any, ...]) -> Any:
        """Apply one of the network's own modules."""
        return self._stock.network.get_submodule(path)(*args)

    def weight(self, path: str) -> Tensor:
        """A parameter or buffer of the network."""
        return weight_at(self._stock.network, path)

    def given(self, name: str) -> Any:
        """A tensor of the feed, on the model's device."""
        if name not in self._tensors:
            raise Misfit(f"no tensor named {name}")
        value = self._tensors[name]
        return value.to(self._stock.device) if isinstance(value, Tensor) else value
