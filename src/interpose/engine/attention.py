"""Attention written out, so that scores and patterns are places like any other.

Queries, keys and values are tapped in front of the stock kernel. Scores and pattern are computed beside it; the stock
result is replaced only when one of them is written.
"""

from collections.abc import Callable, Sequence, Set
from copy import copy
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.errors import RunError

Kernel = Callable[..., tuple[Tensor, Tensor | None]]
Tap = Callable[[str, Tensor], tuple[Tensor, bool]]
"""Given a site's name and its value, the value to go on with and whether it was written."""

_REFUSED = ("indices", "block_indices", "cache")


@runtime_checkable
class Attention(Protocol):
    """How a model library lets one copy of an attention module call another kernel."""

    def install(self, module_copy: torch.nn.Module, function: Callable[..., Any]) -> None:
        """Make this copy call `function(stock, module, query, key, value, mask, **kwargs)`, not its stock kernel."""
        ...

    def widen(self, module_copy: torch.nn.Module) -> None:
        """Let this copy, which writes out its attention itself, also take a key and a value for each query head."""
        ...

    def recording(self) -> Any:
        """A cache that a pass fills with the keys and values of all its positions."""
        ...

    def recorded(self, cache: Any) -> Sequence[tuple[Tensor, Tensor]]:
        """The keys and values that such a cache holds, a pair a layer [batch, head, position, width]."""
        ...

    def prefixed(self, before: Sequence[tuple[Tensor, Tensor]], apart: Set[int]) -> Any:
        """A cache that holds some first positions for a pass over the others, and keeps nothing of that pass.

        Row i of the pass belongs to row i mod batch of what was recorded. The attention of the layers in `apart` brings
        the prefix itself, and gets its own keys and values only.
        """
        ...


def tapped(tap: Tap, needs_scores: bool) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The function that stands in for a stock kernel.

    Args:
        tap: called for each of query, key, value, and, if needed, scores and pattern.
        needs_scores: scores or pattern are read or written.

    Returns:
        a function for `Attention.install`.
    """

    def attend(
        stock: Kernel, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        query, _ = tap("query", query)
        key, _ = tap("key", key)
        value, _ = tap("value", value)
        module, key, value = _same_heads(module, query, key, value)
        if not needs_scores:
            return stock(module, query, key, value, mask, **kwargs)
        scores = attention_scores(module, query, key, mask, **kwargs)
        scores, scores_written = tap("scores", scores)
        # A bias makes the mask additive, and then such rows look everywhere.
        hidden = None if kwargs.get("position_bias") is not None else mask
        pattern = _blind(softmax(scores, query.dtype, kwargs.get("s_aux")), hidden)
        pattern, pattern_written = tap("pattern", pattern)
        if not (scores_written or pattern_written):
            return stock(module, query, key, value, mask, **kwargs)
        pattern = torch.nn.functional.dropout(pattern, kwargs.get("dropout", 0.0), module.training)
        groups = pattern.shape[1] // value.shape[1]
        mixed = torch.matmul(pattern, value.repeat_interleave(groups, 1))
        return mixed.transpose(1, 2).contiguous(), pattern

    return attend


def _blind(pattern: Tensor, mask: Tensor | None) -> Tensor:
    """Rows that may see nothing (padding) attend to nothing where the mask is boolean, as in torch's own kernels."""
    if mask is None or mask.dtype != torch.bool:
        return pattern
    sees = mask[..., : pattern.shape[-1]].any(-1, keepdim=True)
    return pattern if bool(sees.all()) else pattern.masked_fill(~sees, 0.0)


def _same_heads(module: Any, query: Tensor, key: Tensor, value: Tensor) -> tuple[Any, Tensor, Tensor]:
    """Where a write gave each query head its own key or value, the module as the stock kernel should then see it."""
    heads = query.shape[1]
    if getattr(module, "num_key_value_groups", 1) == 1 or heads not in (key.shape[1], value.shape[1]):
        return module, key, value
    seen = copy(module)
    seen.__dict__["num_key_value_groups"] = 1
    return seen, key.repeat_interleave(heads // key.shape[1], 1), value.repeat_interleave(heads // value.shape[1], 1)


def attention_scores(
    module: Any,
    query: Float[Tensor, "b h p d"],
    key: Float[Tensor, "b k q d"],
    mask: Tensor | None,
    **kwargs: Any,
) -> Float[Tensor, "b h p q"]:
    """Scores as the eager kernels of transformers compute them: scaled, soft-capped, masked.

    Args:
        module: the attention module; `scaling` is read from it where the call gives none.
        query: queries.
        key: keys, one a key/value head.
        mask: None (causal), boolean (true = may be seen) or additive.
        **kwargs: `scaling`, `softcap`; sparse attention (`indices`, ...) is refused.

    Returns:
        the scores before softmax; hidden positions hold the type's lowest number.

    Raises:
        RunError: this kind of attention has no dense scores.
    """
    refused = [name for name in _REFUSED if kwargs.get(name) is not None]
    if refused:
        raise RunError(f"Attention that selects positions ({refused[0]}) has no dense scores; read attn.z instead.")
    scaling = kwargs.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    keys = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = torch.matmul(query, keys.transpose(2, 3)) * scaling
    if kwargs.get("softcap") is not None:
        scores = torch.tanh(scores / kwargs["softcap"]) * kwargs["softcap"]
    if kwargs.get("position_bias") is not None:
        scores = scores + kwargs["position_bias"]
    lowest = torch.finfo(scores.dtype).min
    if mask is None and getattr(module, "is_causal", True):
        rows, columns = scores.shape[-2:]
        mask = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril(columns - rows)
    if mask is None:
        return scores
    mask = mask[..., : scores.shape[-1]]
    if mask.dtype == torch.bool:
        return scores + torch.zeros_like(scores).masked_fill(~mask, lowest)
    return scores + mask


def softmax(scores: Float[Tensor, "b h p q"], dtype: torch.dtype, sinks: Tensor | None) -> Float[Tensor, "b h p q"]:
    """Softmax in float32, with attention sinks where the family has them (one extra score a head, dropped after)."""
    if sinks is None:
        return torch.nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(dtype)
    extra = sinks.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], -1)
    joined = torch.cat([scores, extra], dim=-1)
    joined = joined - joined.max(dim=-1, keepdim=True).values
    return torch.nn.functional.softmax(joined, dim=-1, dtype=joined.dtype)[..., :-1].to(dtype)
