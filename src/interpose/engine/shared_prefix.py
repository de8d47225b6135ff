"""Attention of many rows to one prefix: the prefix is multiplied once for all of them, and never repeated.

Stock kernels want every row's keys in one tensor, so that a prefix shared by a hundred rows would be copied a hundred
times, and once more for the query heads that share a key. Here queries of all rows meet the prefix in one product.
"""

from typing import Any

import torch
from torch import Tensor

from interpose.engine.attention import Kernel

WORTHWHILE = 32
"""From how many positions on a prefix is not copied."""
_KNOWN = frozenset(["scaling", "dropout", "softcap", "sliding_window", "is_causal", "position_ids", "use_cache"])
"""What a kernel may be told; where more is set, it is another kind of attention."""


def attend(before: list[Tensor], seen: bool) -> Any:
    """The function that stands in for a stock kernel in a pass behind a prefix; see `Attention.install`.

    Args:
        before: the keys and values of the prefix [prompt, key head, position, width]; row i of the pass belongs to
            prompt i mod the number of prompts. Emptied when the pass is over, which the function outlives.
        seen: every position may look at all of the prefix, unless it looks through a window.
    """

    def kernel(
        stock: Kernel, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        odd = [
            name for name, given in kwargs.items() if name not in _KNOWN and given is not None and given is not False
        ]
        if mask is None or odd or module.training:
            whole = [behind(first, rest) for first, rest in zip(before, (key, value), strict=True)]
            return stock(module, query, *whole, mask, **kwargs)
        keys, values = before
        return _attended((keys, values), (query, key, value), mask, kwargs, seen), None

    return kernel


def _attended(
    before: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor, Tensor], mask: Tensor, options: dict[str, Any], seen: bool
) -> Tensor:
    (keys, values), (query, key, value) = before, own
    (rows, heads, length, width), prompts, prefix = query.shape, keys.shape[0], keys.shape[2]
    shared = key.shape[1]
    if keys.shape[1] != shared:  # a write gave each query head its own
        keys, values = (part.repeat_interleave(shared // part.shape[1], 1) for part in before)
    groups = heads // shared
    scaling = options.get("scaling")
    queries = (query * (width**-0.5 if scaling is None else scaling)).reshape(rows, shared, groups, length, width)
    # Of each prompt and key head, the queries of all rows in one line.
    first = _folded(queries, prompts).flatten(2, 4) @ keys.transpose(-1, -2)
    window = options.get("sliding_window")
    hidden = (
        None if seen and (window is None or window >= prefix + length) else mask[:prompts, :, None, None, :, :prefix]
    )
    first = _scored(first.unflatten(2, (-1, groups, length)), options, hidden)
    late = queries.flatten(2, 3) @ key.transpose(-1, -2)
    behind_it = mask[:prompts, None, :, :, prefix : prefix + length].repeat(rows // prompts, 1, 1, 1, 1)
    late = _scored(late.unflatten(2, (groups, length)), options, behind_it)
    # A softmax over both, in parts that share their largest score.
    most = torch.maximum(first.amax(-1), _folded(late.amax(-1), prompts))
    first = first.sub_(most.unsqueeze(-1)).exp_()
    late = late.sub_(_unfolded(most).unsqueeze(-1)).exp_()
    total = _unfolded(first.sum(-1)) + late.sum(-1)
    mixed = (first.flatten(2, 4).to(values.dtype) @ values).unflatten(2, (-1, groups, length))
    late = (late.flatten(2, 3).to(value.dtype) @ value).unflatten(2, (groups, length))
    mixed = (_unfolded(mixed) + late) / total.unsqueeze(-1)
    return mixed.to(query.dtype).permute(0, 3, 1, 2, 4).reshape(rows, length, heads, width)


def _scored(scores: Tensor, options: dict[str, Any], mask: Tensor | None) -> Tensor:
    scores = scores.float()
    if options.get("softcap") is not None:
        scores = torch.tanh(scores / options["softcap"]) * options["softcap"]
    if mask is None:
        return scores
    return scores.masked_fill_(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask


def _folded(value: Tensor, prompts: int) -> Tensor:
    """From [row, head, ...] to [prompt, head, time, ...]."""
    return value.unflatten(0, (-1, prompts)).movedim(0, 2)


def _unfolded(value: Tensor) -> Tensor:
    """From [prompt, head, time, ...] to [row, head, ...]."""
    return value.movedim(2, 0).flatten(0, 1)


def behind(before: Tensor, new: Tensor) -> Tensor:
    """New positions behind those of the prompt that each row belongs to [row, head, position, width]."""
    if before.shape[1] != new.shape[1]:  # a write gave each query head its own
        before = before.repeat_interleave(new.shape[1] // before.shape[1], 1)
    times = new.shape[0] // before.shape[0]
    if before.shape[0] == 1:
        return torch.cat([before.expand(times, -1, -1, -1), new], -2)
    return torch.cat([before.expand(times, *before.shape), new.unflatten(0, (times, -1))], -2).flatten(0, 1)
