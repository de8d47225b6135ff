"""The seam between what to do and where it runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from interpose.graph.feed import Feed
from interpose.graph.nodes import Graph


@runtime_checkable
class Backend(Protocol):
    """Whatever can run graphs: this process, a server in this process, a server elsewhere."""

    @property
    def opened(self) -> Mapping[str, str]:
        """The weights' hash of every other model that was opened here, by name."""
        ...

    def run_many(self, graphs: Sequence[Graph], feeds: Sequence[Feed]) -> Iterator[dict[str, Any]]:
        """Run each graph with the feed beside it.

        A method hands over its whole sweep at once, never a loop of single runs, so that the backend can batch and cut.
        It may do runs before their values are asked for: change no weight until all values are there.

        Args:
            graphs: what to do; the same object may stand many times.
            feeds: as many feeds; what each run is given.

        Yields:
            for each graph the saved values by name, in order; tensors are detached.
        """
        ...

    def search(self, method: Any, model: Any, pairs: Any, mediators: Any) -> Any:
        """Run a search method beside the weights.

        Args:
            method: a frozen dataclass of settings, from `interpose.methods`.
            model: the model whose backend this is.
            pairs: counterfactual pairs.
            mediators: the units to score.

        Returns:
            what the method's `search` returns.
        """
        ...

    def open(self, name: str) -> Any:
        """Another model, where this one runs.

        Args:
            name: as `ip.load` takes it.

        Returns:
            the other model, on the same device and with the same number type.

        Raises:
            LoadError: this backend has no way to open models, or there is none of that name.
        """
        ...
