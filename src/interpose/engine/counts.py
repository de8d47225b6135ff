"""How much work a backend has done: its passes through the network, forward and backward."""

import threading
from typing import final


@final
class Counts:
    """Passes made so far; threads that run at once all count here.

    A forward pass is one call of the stock network over a batch. Runs of a sweep that go together are one pass, however
    many they are; a pass that begins behind kept layers, or ends before the last one, is one too. A step of a
    generation is a pass. A backward pass is one derivative back through a run of the network; derivatives
    of single modules, such as a norm that is called in a block, are none.

    Read the numbers before and after a job, and take the difference:

        before = model.backend.counts.forward
    """

    def __init__(self) -> None:
        """Nothing has run yet."""
        self._lock = threading.Lock()
        self._forward = self._backward = 0

    @property
    def forward(self) -> int:
        """Forward passes."""
        return self._forward

    @property
    def backward(self) -> int:
        """Backward passes."""
        return self._backward

    def one_forward(self) -> None:
        """Note one forward pass."""
        with self._lock:
            self._forward += 1

    def one_backward(self) -> None:
        """Note one backward pass."""
        with self._lock:
            self._backward += 1

    def __repr__(self) -> str:
        return f"Counts(forward={self.forward}, backward={self.backward})"
