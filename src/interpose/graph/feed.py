"""What a graph is given when it runs: a batch for each world, a tensor for each named input."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from interpose.errors import GraphError
from interpose.graph.named_positions import counts_from_start, named_positions
from interpose.graph.nodes import Graph


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class Generation:
    """How new tokens are chosen, one a step.

    Attributes:
        max_new_tokens: how many, at most.
        temperature: 0 takes the likeliest token; above, tokens are drawn at this temperature.
        top_k: draw among this many of the likeliest; None for all.
        top_p: draw among the likeliest that together have this probability; None for all.
        seed: of the draws; row i of a batch draws by its own stream.
        stop: tokens that end a row.
        pad: the token that fills an ended row up.
        start: for networks with an encoder, the token that the decoder begins with.

    Raises:
        GraphError: a setting is out of range.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    stop: tuple[int, ...] = ()
    pad: int = 0
    start: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        count, seed, top_k, heat = self.max_new_tokens, self.seed, self.top_k, self.temperature
        checks = {
            "max_new_tokens must be a whole number, at least 1": _whole(count) and count >= 1,
            "temperature must not be negative": not heat < 0,
            "temperature must be a finite number": isfinite(heat),
            "seed must be a whole number from 0 to 2**63 - 1": _whole(seed) and 0 <= seed < 2**63,
            "top_k must be a whole number, at least 1": top_k is None or (_whole(top_k) and top_k >= 1),
            "top_p must lie above 0 and at most at 1": self.top_p is None or 0 < self.top_p <= 1,
            "top_k and top_p need a temperature above 0": heat > 0 or top_k is self.top_p is None,
        }
        for said, holds in checks.items():
            if not holds:
                raise GraphError(f"{said}: {self}.")


@dataclass(frozen=True)
class Batch:
    """The arguments of one call of a network.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments; for a language model `input_ids`, `attention_mask`, `position_ids`.
        generation: how the network goes on from there; None for one forward pass.
        whole: its mask was made for prompts of one length, so that no row is padded.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    generation: Generation | None = None
    whole: bool = False

    @classmethod
    def of_tokens(cls, ids: Any, mask: Any) -> "Batch":
        """A language model's batch from left-padded tokens.

        Args:
            ids: token ids, shape [batch, position].
            mask: true where a token is real, shape [batch, position].

        Returns:
            the batch, with positions counted from each row's first real token.
        """
        mask = mask.long()
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        kwargs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "use_cache": False}
        return cls(kwargs=kwargs)

    @property
    def padding(self) -> Any:
        """How many padding tokens each row starts with, shape [batch]; None where the batch has no attention mask."""
        mask = self.kwargs.get("attention_mask")
        return None if mask is None or mask.ndim != 2 else (mask.cumsum(-1) == 0).sum(-1)


@dataclass(frozen=True)
class Feed:
    """Everything that changes between two runs of the same graph.

    Attributes:
        worlds: the batch of each world, by the world's name.
        tensors: the tensor of each `Input` and `Constant`, by name.
        graph: the graph that it was recorded with, so that other prompts can be checked against it; None for no check.
    """

    worlds: Mapping[str, Batch] = field(default_factory=dict)
    tensors: Mapping[str, Any] = field(default_factory=dict)
    graph: Graph | None = field(default=None, compare=False, repr=False)

    def with_(self, worlds: Mapping[str, Batch] | None = None, **tensors: Any) -> "Feed":
        """The same feed with some worlds or tensors replaced or added.

        Raises:
            GraphError: the graph counts positions of a world from the start, and its prompts are now padded otherwise.
        """
        for name, batch in (worlds or {}).items():
            if self.graph is not None and name in self.worlds and _padding(batch) != _padding(self.worlds[name]):
                self._check_positions(self.graph, name)
        return Feed({**self.worlds, **(worlds or {})}, {**self.tensors, **tensors}, self.graph)

    def _check_positions(self, graph: Graph, world: str) -> None:
        for found in named_positions(graph, world):
            if counts_from_start(found.part, self.tensors):
                raise GraphError(
                    f"{found.node.at}: this graph names positions of {found.site} from the start, as they lie in the "
                    f"prompts that it was recorded on, and the prompts now given to the world {world!r} are padded "
                    "otherwise. Count from the end (-1 is the last), or record the block on these prompts."
                )


def _padding(batch: Batch) -> list[int]:
    """How many padding tokens each row starts with; empty where none does."""
    found = batch.padding
    return found.tolist() if found is not None and bool(found.any()) else []
