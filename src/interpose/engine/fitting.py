"""A value in the shape of the site that it is written to."""

from typing import Any

import torch
from torch import Tensor

from interpose.engine.making import Misfit
from interpose.engine.world import gives_each_query_head_its_own
from interpose.graph.sites import Site


def fitting(site: Site, value: Any, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    """A value as a site of some shape takes it; keys and values may have one head a query head."""
    if not isinstance(value, Tensor):
        raise Misfit("what is written is no tensor")
    value = value.to(dtype)
    if value.shape == shape:
        return value
    if gives_each_query_head_its_own(site, value.shape, shape):
        return value
    try:
        return value.expand(shape)
    except RuntimeError as error:
        raise Misfit(str(error)) from None


def widened(value: Tensor, shape: torch.Size) -> Tensor:
    """Keys or values in the shape of those that each query head has of its own."""
    for axis in (1, 2):
        if value.shape[axis] != shape[axis]:
            return value.repeat_interleave(shape[axis] // value.shape[axis], axis)
    return value
