"""What a graph is given when it runs: a batch for each world, a tensor for each named input."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Batch:
    """The arguments of one call of a network.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments; for a language model `input_ids`, `attention_mask`, `position_ids`.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

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
