"""Which memory is the network's own, and what to say where memory ran out."""

import os
import traceback
from itertools import chain
from pathlib import Path
from typing import final

import torch

from interpose.errors import InterposeError, RunError

_LESS = (
    "Memory ran out. Hold less at once: fewer prompts in a batch; shorter prompts; fewer saved sites, or only the "
    "positions that are needed (site[:, -1].save()); a smaller number type (ip.load(name, dtype='bfloat16'))."
)
_ON_CPU = ("can't allocate memory", "not enough memory")


@final
class WeightMemory:
    """The memory of a network's parameters and buffers, which a module may return, or a part of it.

    Args:
        network: the network.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        """Nothing is looked up before it is asked for."""
        self._network = network
        self._first: torch.Tensor | None = None
        self._found: tuple[int, frozenset[int]] | None = None

    def found(self) -> frozenset[int]:
        """The handles of all its storages; looked up again once the first of them is another (`network.to(...)`)."""
        if self._found is None or (self._first is not None and _storage(self._first) != self._found[0]):
            weights = [
                weight for weight in chain(self._network.parameters(), self._network.buffers()) if _plain(weight)
            ]
            self._first = weights[0] if weights else None
            self._found = _storage(weights[0]) if weights else 0, frozenset(map(_storage, weights))
        return self._found[1]


def _plain(weight: torch.Tensor) -> bool:
    """Whether a weight has one memory of its own; quantised ones are of other types."""
    return type(weight) in (torch.Tensor, torch.nn.Parameter) and weight.layout == torch.strided


def _storage(weight: torch.Tensor) -> int:
    return weight.untyped_storage()._cdata


def with_advice(error: InterposeError, cause: BaseException | None = None) -> InterposeError:
    """The same error; where memory ran out, one that says what to lower.

    Args:
        error: what was raised.
        cause: what it was raised from, where that is not noted in it.
    """
    cause = cause or error.__cause__
    if cause is None or not is_out_of_memory(cause):
        return error
    # A notebook keeps the last error, whose frames would keep every tensor that was there when memory ran out.
    traceback.clear_frames(cause.__traceback__)
    return RunError(f"{error}\n{_LESS}")


def free(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        found = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on an accelerator or on the CPU, for which torch has no class."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ON_CPU)
