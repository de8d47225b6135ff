"""Shapes that no table tells: found by running torch on tensors without data."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from interpose.errors import InterposeError, TraceError
from interpose.graph import Feed, Graph
from interpose.trace.recorder import try_shapes, user_line


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


def shape_of_call(
    module: torch.nn.Module, path: str, values: list[torch.Tensor], device: torch.device
) -> torch.Tensor | None:
    """The shape of what a module gives for inputs of known shapes.

    Args:
        module: the module.
        path: its path, for messages.
        values: tensors of the inputs' shapes and types.
        device: where the module is.

    Returns:
        a tensor without data; None where the module gives something else than one tensor.

    Raises:
        ShapeError: the module does not take such inputs; the message starts with the user's line.
    """

    def call() -> Any:
        return module(*(torch.empty(value.shape, dtype=value.dtype, device=device) for value in values))

    with _without_data(), torch.no_grad():
        found = try_shapes(call, (), {}, f"calling {path}")
    return torch.empty(found.shape, dtype=found.dtype, device="meta") if isinstance(found, torch.Tensor) else None


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


def shapes_of(feed: Feed) -> tuple[Any, ...]:
    """The shapes and types of everything in a feed; two feeds for which it is equal give equal shapes everywhere."""
    found: list[Any] = []
    stack: list[Any] = [feed.tensors, *((world, batch.args, batch.kwargs) for world, batch in feed.worlds.items())]
    while stack:
        value = stack.pop()
        if isinstance(value, torch.Tensor):
            found.append((tuple(value.shape), value.dtype))
        elif isinstance(value, Mapping):
            stack.extend(value.items())
        elif isinstance(value, tuple | list):
            stack.extend(value)
        else:
            found.append(repr(value))
    return tuple(found)
