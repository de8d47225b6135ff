"""What a graph is given when it runs: a batch for each world, a tensor for each named input."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from interpose.errors import GraphError


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
    """

    worlds: Mapping[str, Batch] = field(default_factory=dict)
    tensors: Mapping[str, Any] = field(default_factory=dict)

    def with_(self, worlds: Mapping[str, Batch] | None = None, **tensors: Any) -> "Feed":
        """The same feed with some worlds or tensors replaced or added."""
        return Feed({**self.worlds, **(worlds or {})}, {**self.tensors, **tensors})
