"""What a piece of work costs: time, memory, and passes through the network."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import torch

from interpose.trace import Model

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
GPU, PROCESS = "GPU memory above what was held before", "memory of the process above what was held before"


@dataclass(frozen=True)
class Cost:
    """What one piece of work took.

    Attributes:
        seconds: by the clock on the wall.
        forward: forward passes of the stock network; see `interpose.engine.counts.Counts`.
        backward: backward passes.
        memory: the most bytes that were held on top of what was held before; None where nothing can tell.
        memory_of: what `memory` counts, in words; empty where nothing can tell.
    """

    seconds: float
    forward: int
    backward: int
    memory: int | None
    memory_of: str

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers and words, ready for JSON."""
        return asdict(self)


@final
class Meter:
    """Measures what is done inside `running`.

    Attributes:
        cost: what it took; there when the block has ended.

    Args:
        model: whose passes are counted.
    """

    def __init__(self, model: Model) -> None:
        """Measure nothing yet."""
        self._model, self.cost = model, Cost(0.0, 0, 0, None, "")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the work inside."""
        counts, device = self._model.backend.counts, self._model.device
        forward, backward = counts.forward, counts.backward
        before, kind = _start(device)
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        memory = None if before is None else max(0, (_peak(device) or 0) - before)
        self.cost = Cost(seconds, counts.forward - forward, counts.backward - backward, memory, kind)


def peak_memory() -> int:
    """The most memory that this process has held, in bytes; on a GPU, of the GPU's."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _start(device: torch.device) -> tuple[int | None, str]:
    """Forget the peak so far; gives what is held now, in bytes, and what is counted."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device), GPU
    try:
        _RESET.write_text("5")  # the kernel's "peak resident memory" starts again from what is resident now
    except OSError:
        return None, ""
    return _peak(device), PROCESS


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) * 1024
