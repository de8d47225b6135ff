"""Caches of keys and values that let a forward pass of transformers begin in the middle of a prompt."""

from collections.abc import Sequence
from functools import cache
from typing import Any, final

import torch
from torch import Tensor


def recording() -> Any:
    """A cache that keeps the keys and values of every position, also where attention looks through a window."""
    from transformers.cache_utils import DynamicCache

    return DynamicCache()  # not told the config, by which it would keep only the last window


def recorded(kept: Any) -> tuple[tuple[Tensor, Tensor], ...]:
    """The keys and values that a recording cache holds, a pair a layer [batch, head, position, width]."""
    return tuple((layer.keys, layer.values) for layer in kept.layers)


def prefixed(before: Sequence[tuple[Tensor, Tensor]], length: int) -> Any:
    """A cache in front of every layer's keys and values, which keeps nothing of the pass it is used in.

    Args:
        before: each layer's keys and values of some prompts [batch, head, position, width].
        length: how many positions of them come before.

    Returns:
        a cache for a pass whose rows are those prompts, any number of times over: row i belongs to prompt i mod batch.
    """
    from transformers.cache_utils import Cache

    kind = _layer_class()
    return Cache(layers=[kind(keys[:, :, :length], values[:, :, :length]) for keys, values in before])


@cache
def _layer_class() -> Any:
    from transformers.cache_utils import DynamicLayer

    @final
    class PrefixLayer(DynamicLayer):
        """One layer's keys and values of the positions before; the same for every row of a prompt."""

        def __init__(self, keys: Tensor, values: Tensor) -> None:
            super().__init__()
            self.lazy_initialization(keys, values)
            self.before = keys, values

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            return _behind(self.before[0], key_states), _behind(self.before[1], value_states)

        def get_seq_length(self) -> int:
            return self.before[0].shape[-2]

    return PrefixLayer


def _behind(before: Tensor, new: Tensor) -> Tensor:
    """New positions behind those of the prompt that each row belongs to [row, head, position, width]."""
    if before.shape[1] != new.shape[1]:  # a write gave each query head its own
        before = before.repeat_interleave(new.shape[1] // before.shape[1], 1)
    times = new.shape[0] // before.shape[0]
    expanded = before.expand(times, *before.shape) if before.shape[0] > 1 else before.unsqueeze(0)
    if before.shape[0] == 1:
        return torch.cat([before.expand(times, -1, -1, -1), new], -2)
    return torch.cat([expanded, new.unflatten(0, (times, -1))], -2).flatten(0, 1)
