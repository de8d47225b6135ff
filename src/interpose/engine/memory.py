"""What to say where memory ran out."""

import traceback

import torch

from interpose.errors import InterposeError, RunError

_LESS = (
    "Memory ran out. Hold less at once: fewer prompts in a batch; shorter prompts; fewer saved sites, or only the "
    "positions that are needed (site[:, -1].save()); a smaller number type (ip.load(name, dtype='bfloat16'))."
)
_ON_CPU = ("can't allocate memory", "not enough memory")


def with_advice(error: InterposeError, cause: BaseException | None = None) -> InterposeError:
    """The same error; where memory ran out, one that says what to lower.

    Args:
        error: what was raised.
        cause: what it was raised from, where that is not noted in it.
    """
    cause = cause or error.__cause__
    if cause is None or not _is_out_of_memory(cause):
        return error
    # A notebook keeps the last error, whose frames would keep every tensor that was there when memory ran out.
    traceback.clear_frames(cause.__traceback__)
    return RunError(f"{error}\n{_LESS}")


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on an accelerator or on the CPU, for which torch has no class."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ON_CPU)
