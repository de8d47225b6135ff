"""Caches of keys and values that let a forward pass of transformers begin in the middle of a prompt."""

from collections.abc import Sequence, Set
from functools import cache
from typing import Any, final

from torch import Tensor

from interpose.engine.shared_prefix import behind


def recording() -> Any:
    """A cache that keeps the keys and values of every position, also where attention looks through a window."""
    from transformers.cache_utils import DynamicCache

    return DynamicCache()  # not told the config, by which it would keep only the last window


def recorded(kept: Any) -> tuple[tuple[Tensor, Tensor], ...]:
    """The keys and values that a recording cache holds, a pair a layer [batch, head, position, width]."""
    return tuple((layer.keys, layer.values) for layer in kept.layers)


def prefixed(before: Sequence[tuple[Tensor, Tensor]], apart: Set[int]) -> Any:
    """A cache in front of every layer's keys and values, which keeps nothing of the pass it is used in.

    Args:
        before: each layer's keys and values of some prompts [batch, head, position, width].
        apart: the layers whose attention brings the prefix itself, so that it gets its own keys and values only.

    Returns:
        a cache for a pass whose rows are those prompts, any number of times over: row i belongs to prompt i mod batch.
    """
    from transformers.cache_utils import Cache

    kind = _layer_class()
    return Cache(layers=[kind(*given, layer in apart) for layer, given in enumerate(before)])


@cache
def _layer_class() -> Any:
    from transformers.cache_utils import DynamicLayer

    @final
    class PrefixLayer(DynamicLayer):
        """One layer's keys and values of the positions before; the same for every row of a prompt."""

        def __init__(self, keys: Tensor, values: Tensor, apart: bool) -> None:
            super().__init__()
            self.lazy_initialization(keys, values)
            self.before, self.apart = (keys, values), apart

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            if self.apart:
                return key_states, value_states
            return behind(self.before[0], key_states), behind(self.before[1], value_states)

        def get_seq_length(self) -> int:
            return self.before[0].shape[-2]

    return PrefixLayer
