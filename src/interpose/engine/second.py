"""Second derivatives through torch's own attention kernels.

The fast kernels have a first derivative only. Where a gradient is differentiated again, torch's plain form of the same
function stands in for them, in this thread and for this run; it differs by rounding.
"""

from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_KERNEL = torch.nn.functional.scaled_dot_product_attention


@final
class PlainAttention(TorchFunctionMode):
    """While it is open, torch's attention is computed by operations that can be differentiated any number of times."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ARG002
        """Called by torch in place of each of its functions."""
        kwargs = kwargs or {}
        return _plain(*args, **kwargs) if func is _KERNEL else func(*args, **kwargs)


def _plain(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
) -> Any:
    if attn_mask is not None and attn_mask.dtype == torch.bool:  # the plain form only adds its mask
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -torch.inf)
    return torch.ops.aten._scaled_dot_product_attention_math(query, key, value, attn_mask, *args, **kwargs)[0]
