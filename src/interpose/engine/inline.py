"""Attention that a module writes out in its own forward, in place of calling an attention function.

While the forward of a view's copy runs, the functions of torch that it calls are watched, in its own thread only. The
first product of two stacks of matrices is that of queries and keys; the softmax after it takes the scores and gives the
pattern; the next product mixes the values. A call of torch's own attention kernel is all of these at once. What is read
goes on as it was, so that reading changes no bit.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from interpose.engine.attention import Tap, tapped

_PRODUCTS: dict[Any, tuple[int, tuple[str, str]]] = {
    torch.matmul: (0, ("input", "other")),
    torch.bmm: (0, ("input", "mat2")),
    torch.baddbmm: (1, ("batch1", "batch2")),
    Tensor.matmul: (0, ("self", "other")),
    Tensor.__matmul__: (0, ("self", "other")),
    Tensor.bmm: (0, ("self", "mat2")),
    Tensor.baddbmm: (1, ("batch1", "batch2")),
}
"""Where each function has its two factors, among its arguments and by name."""

_SOFTMAXES = (torch.nn.functional.softmax, torch.softmax, Tensor.softmax)
_KERNEL = torch.nn.functional.scaled_dot_product_attention


@final
class InlineTap(TorchFunctionMode):
    """Watches one call of an attention module's forward.

    Args:
        tap: called for query [batch, head, position, width], key, value, scores and pattern; gives the value to go on
            with and whether it was written.
        needs_scores: scores or pattern are read or written.
        like: what the module was given: its rows are the batch, its type that of queries, keys, values and patterns.
        heads: how many heads a site has, by its name, or 0 for as many as there are. A module may have repeated keys
            and values.
        paused: whether what runs now is not the module's own but the block's, computed on the way.
    """

    def __init__(
        self, tap: Tap, needs_scores: bool, like: Tensor, heads: Callable[[str], int], paused: Callable[[], bool]
    ) -> None:
        """Wait for the first product."""
        super().__init__()
        self._tap, self._needs_scores, self._like = tap, needs_scores, like
        self._heads, self._paused = heads, paused
        self._next = "scores"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ARG002
        """Called by torch in place of each of its functions; the mode is off inside."""
        kwargs = kwargs or {}
        if not self._paused():
            if func in _PRODUCTS and self._next in ("scores", "mix"):
                return self._product(func, list(args), kwargs)
            if func in _SOFTMAXES and self._next == "softmax":
                return self._softmax(func, list(args), kwargs)
            if func is _KERNEL and self._next == "scores":
                return self._kernel(*args, **kwargs)
        return func(*args, **kwargs)

    def _product(self, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        first, names = _PRODUCTS[func]
        found = [_argument(args, kwargs, first + i, name) for i, name in enumerate(names)]
        left, right = (holder[key] for holder, key in found)
        if left.ndim < 3 or right.ndim < 3:
            return func(*args, **kwargs)  # by a matrix of weights
        if self._next == "scores":
            left = self._through("query", left)
            right = self._through("key", right.transpose(-1, -2), right)
        else:
            right = self._through("value", right)
        for (holder, key), value in zip(found, (left, right), strict=True):
            holder[key] = value
        self._next = "softmax" if self._next == "scores" else "done"
        return func(*args, **kwargs)

    def _softmax(self, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        self._next = "mix"
        holder, key = _argument(args, kwargs, 0, "input")
        holder[key] = self._through("scores", holder[key])
        return self._through("pattern", func(*args, **kwargs))

    def _kernel(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *rest: Any, **more: Any) -> Any:
        self._next = "done"
        given = dict(zip(("dropout_p", "is_causal", "scale", "enable_gqa"), rest, strict=False)) | more
        dropout = given.get("dropout_p", 0.0)

        def stock(_: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **__: Any) -> tuple[Tensor, None]:
            return _KERNEL(query, key, value, mask, **given).transpose(1, 2), None

        def tap(name: str, value: Tensor) -> tuple[Tensor, bool]:
            after = self._through(name, value)
            return after, after is not value

        # The kernel drops whenever it is told to, and sees the future unless it is told not to.
        module = SimpleNamespace(is_causal=given.get("is_causal", False), training=dropout > 0)
        attend = tapped(tap, self._needs_scores)
        mixed, _ = attend(stock, module, query, key, value, attn_mask, scaling=given.get("scale"), dropout=dropout)
        return mixed.transpose(1, 2)

    def _through(self, name: str, value: Tensor, stored: Tensor | None = None) -> Tensor:
        """Pass a tensor through its tap: with an axis of heads, in the module's type, one head a key/value head.

        Returns:
            `stored` (or `value`) itself where nothing was written; else the new one, laid out as it.
        """
        folded = value.ndim == 3
        shown = value.unflatten(0, (self._like.shape[0], -1)) if folded else value
        heads, wanted = shown.shape[1], self._heads(name)
        repeated = 0 < wanted < heads
        if repeated:
            shown = shown[:, :: heads // wanted]
        if name != "scores":  # which a module may make more precise than all else
            shown = shown.to(self._like.dtype)
        new, written = self._tap(name, shown)
        if not written:
            return value if stored is None else stored
        new = new.to(value.dtype)
        if repeated:
            new = new.repeat_interleave(heads // new.shape[1], 1)
        new = new.flatten(0, 1) if folded else new
        return new if stored is None else new.transpose(-1, -2)


def _argument(args: list[Any], kwargs: dict[str, Any], index: int, name: str) -> tuple[Any, Any]:
    """Where an argument of a call is: what holds it, and by which index or name."""
    return (args, index) if index < len(args) else (kwargs, name)
