"""Shapes that no table tells: found by running torch on tensors without data."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from interpose.errors import InterposeError, TraceError
from interpose.graph import Feed, Graph
from interpose.trace.recorder import user_line


@contextmanager
def _without_data() -> Iterator[FakeTensorMode]:
    # torch reports a misfit on stderr as well as by the exception; the exception is enough.
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield mode
    finally:
        logger.setLevel(level)


def shape_of_call(module: torch.nn.Module, values: list[torch.Tensor], device: torch.device) -> torch.Tensor:
    """The shape of what a module gives for inputs of known shapes, as a tensor without data."""
    with _without_data(), torch.no_grad():
        found = module(*(torch.empty(value.shape, dtype=value.dtype, device=device) for value in values))
    return torch.empty(found.shape, dtype=found.dtype, device="meta")


def shape_of_saved(backend: Any, graph: Graph, feed: Feed) -> torch.Tensor:
    """The shape of the value that a graph saves as `wanted`, as a tensor without data.

    Raises:
        TraceError: the model cannot run without data, or the value is no tensor.
    """
    try:
        with _without_data():
            found = next(backend.run_many([graph], [feed]))["wanted"]
    except InterposeError as error:
        raise TraceError(
            f"{user_line()}: the shape of this value is needed here and is not known before the model runs ({error}). "
            "Save it and look at it after the block."
        ) from error
    if not isinstance(found, torch.Tensor):
        raise TraceError(
            f"{user_line()}: this module returns a {type(found).__name__}, not one tensor; take an element of it first ([0])."
        )
    return torch.empty(found.shape, dtype=found.dtype, device="meta")
