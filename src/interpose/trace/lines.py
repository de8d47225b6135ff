"""The user's own line, for errors and nodes."""

import contextlib
import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from interpose.errors import ShapeError, TraceError

_PACKAGE = str(Path(__file__).parent.parent)
_TORCH = str(Path(torch.__file__).parent)
_MADE = ("<frozen", "<@", "<string>", "<__array")
_HELPERS = ("/einops/", "/jaxtyping/", "/beartype/", contextlib.__file__, copy.__file__)


def user_line(ours: int = 0) -> str:
    """The innermost line of the program that is not interpose's, torch's or a tensor helper's, as file:line.

    Args:
        ours: how many callers are interpose's for certain, and need not be looked at.
    """
    frame, outermost = sys._getframe(1 + ours), ""
    while frame is not None:
        name = frame.f_code.co_filename
        whose = _KNOWN.get(name) or _whose(name)
        if whose == "user":
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        if whose == "made":
            outermost = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return outermost


_KNOWN: dict[str, Literal["user", "made", "ours"]] = {}
"""Whose the files met so far are."""


def _whose(name: str) -> Literal["user", "made", "ours"]:
    if name.startswith(_MADE):
        found = "made"
    elif name.startswith(_PACKAGE):
        found = "user" if name.startswith(f"{_PACKAGE}/studies/") else "ours"
    else:
        found = "ours" if name.startswith(_TORCH) or any(part in name for part in _HELPERS) else "user"
    return _KNOWN.setdefault(name, found)


def try_shapes(function: Callable[..., Any], args: Any, kwargs: Any, what: str) -> Any:
    """Run an operation on tensors that have shapes and no data.

    Raises:
        ShapeError: the operation does not fit its arguments; the message starts with the user's line.
        TraceError: the result's shape depends on values, which are not known yet.
    """
    try:
        return function(*args, **kwargs)
    except NotImplementedError as error:
        raise TraceError(
            f"{user_line()}: the shape of {what} depends on values that are not known yet (a mask index, .item(), "
            "nonzero). "
            "Use torch.where, or save the value and compute on it after the block."
        ) from error
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        raise ShapeError(f"{user_line()}: {what} does not fit: {error}") from error
