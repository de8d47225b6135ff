"""A limit on how long a cell may take, judged while it runs by how far it says it is."""

import time
from typing import NamedTuple, final

from interpose.search.progress import Watcher

_PATIENCE = 0.02
"""The share of the limit that must have passed before a forecast is believed."""


class TooLong(BaseException):  # noqa: N818
    """Stops a cell that would take too long; never leaves the benchmark. No `except Exception` may swallow it.

    Attributes:
        hours: how long the cell would have taken, as far as can be told.
    """

    def __init__(self, hours: float) -> None:
        super().__init__(f"would take {hours:.2g} hours")
        self.hours = hours


class _Stage(NamedTuple):
    """When a stage began, and what was done then."""

    at: float
    done: int


@final
class Limit:
    """A watcher that hands on what it is told, and stops the work where that would take too long.

    Args:
        hours: the most that all of the work may take; None for no limit.
        tell: who else wants to be told.
    """

    def __init__(self, hours: float | None, tell: Watcher) -> None:
        """The clock runs from here."""
        self._seconds = None if hours is None else 3600 * hours
        self._tell, self._started = tell, time.perf_counter()
        self._stages: dict[str, _Stage] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take note of progress.

        Raises:
            TooLong: what is left of this stage would go over the limit.
        """
        self._tell(what, done, total)
        now, stage = time.perf_counter(), self._stages.get(what)
        if stage is None or done <= stage.done:
            self._stages[what] = stage = _Stage(now, done)
        if self._seconds is None:
            return
        whole = now - self._started
        if done > stage.done:
            # What was done when the stage began was kept from an earlier run, and says nothing of speed.
            whole += (now - stage.at) * (total - done) / (done - stage.done)
        if whole > self._seconds and now - self._started > _PATIENCE * self._seconds:
            raise TooLong(whole / 3600)
