"""A stream of prompts: taken in order, hashed as they go by, never held all at once."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from interpose.errors import DataError
from interpose.graph import Batch
from interpose.trace.lines import user_line
from interpose.trace.prompts import Tokens
from interpose.trace.tokens import padded

if TYPE_CHECKING:
    from interpose.trace.model import Model

Prompt = str | Tensor
"""A text, the ids of its tokens [position], or, for a network without tokens, one example."""


@final
class Prompts:
    """The prompts of a data set.

    Attributes:
        total: how many there are, where that is known.
        count: how many have been taken.

    Args:
        prompts: texts, token ids or a batch of them; for a network without tokens, examples. Any iterable.
        language: they are token ids or texts, not examples.
    """

    def __init__(self, prompts: Any, language: bool) -> None:
        """Nothing is taken yet."""
        prompts = _rows(prompts)
        self.total: int | None = len(prompts) if hasattr(prompts, "__len__") else None
        self.count = 0
        self._items, self._language = iter(prompts), language
        self._hash = hashlib.sha256()

    @property
    def hash(self) -> str:
        """A hash of all that have been taken, as hex."""
        return self._hash.hexdigest()

    def take(self, number: int) -> list[Prompt]:
        """The next prompts; fewer where they end.

        Raises:
            DataError: one of them is no prompt.
        """
        taken = [self._checked(item, self.count + at) for at, item in enumerate(islice(self._items, number))]
        for item in taken:
            text = isinstance(item, str)
            kind = "text" if text else f"{item.dtype}{tuple(item.shape)}"
            data = item.encode("utf-8", "surrogatepass") if text else item.view(-1).view(torch.uint8).numpy().tobytes()
            self._hash.update(f"{kind} {len(data)}:".encode() + data)
        self.count += len(taken)
        return taken

    def _checked(self, item: Any, number: int) -> Prompt:
        if isinstance(item, str):
            return item
        try:
            value = torch.as_tensor(item).detach().cpu().contiguous()
        except (TypeError, ValueError, RuntimeError):
            value = torch.empty(0)
        is_ids = value.ndim == 1 and not value.is_floating_point() and not value.is_complex()
        if not value.numel() or (self._language and not is_ids):
            raise DataError(
                f"{user_line()}: prompt {number} is {_described(item)}. A prompt is a text or the ids of its tokens: a "
                "list of integers or a tensor [position] of them."
            )
        return value.long() if is_ids else value


def _rows(prompts: Any) -> Any:
    """One prompt after another, whatever several were given as."""
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts, Tokens):
        prompts = prompts.batch
    if isinstance(prompts, Batch) or (isinstance(prompts, Mapping) and "input_ids" in prompts):
        given = prompts.kwargs if isinstance(prompts, Batch) else prompts
        mask = given.get("attention_mask")
        return [row if mask is None else row[mask[at].bool()] for at, row in enumerate(given["input_ids"])]
    if not isinstance(prompts, Iterable) or isinstance(prompts, Mapping):
        raise DataError(
            f"{user_line()}: cache takes prompts one after another (a list or any iterable), and was given "
            f"{_described(prompts)}."
        )
    return prompts[None] if isinstance(prompts, Tensor) and prompts.ndim == 1 else prompts


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {str(value.dtype).removeprefix('torch.')}"
    return "empty" if hasattr(value, "__len__") and not len(value) else f"a {type(value).__name__}"


@dataclass(frozen=True)
class Fed:
    """Some prompts as one call of the network.

    Attributes:
        batch: what it is called with.
        count: how many prompts.
        ids: the token ids [prompt, position]; None for examples.
        mask: true where a token is real [prompt, position]; None for examples.
    """

    batch: Batch
    count: int
    ids: Tensor | None = None
    mask: Tensor | None = None


def fed(model: "Model", prompts: list[Prompt], first: int) -> Fed:
    """Prompts as one call of the network, padded on the left where they are of unequal length.

    Args:
        model: the model.
        prompts: some prompts.
        first: the number of the first of them.

    Raises:
        DataError: a network without a table was given token ids or examples that do not stack.
    """
    rows = [model.tokens(item).ids[0] if isinstance(item, str) else item for item in prompts]
    if model.family is not None or any(isinstance(item, str) for item in prompts):
        batch = padded([row.tolist() for row in rows], model.tokenizer)
        return Fed(batch, len(rows), batch.kwargs["input_ids"], batch.kwargs["attention_mask"].bool())
    shapes = list(dict.fromkeys(tuple(row.shape) for row in rows))
    if len(shapes) > 1:
        raise DataError(
            f"{user_line()}: prompts {first} to {first + len(rows) - 1} go into one batch and have different shapes "
            f"({', '.join(map(str, shapes))}). This model has no "
            "table that tells how to pad them: give prompts of one shape, or batch_size=1."
        )
    stacked = torch.stack(rows)
    if stacked.ndim == 2 and stacked.dtype == torch.long:
        return Fed(Batch((stacked,)), len(rows), stacked, torch.ones_like(stacked, dtype=torch.bool))
    return Fed(Batch((stacked,)), len(rows))
