"""Timing contenders side by side, and what can be said of the ratios between them."""

import gc
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

RESAMPLES = 2000


@final
@dataclass(frozen=True)
class Estimate:
    """A median and its 95 % bootstrap interval."""

    median: float
    low: float
    high: float


def estimate(values: Sequence[float], seed: int) -> Estimate:
    """The median of some numbers, with the percentile bootstrap interval of that median.

    Args:
        values: the numbers.
        seed: of the resamples.

    Returns:
        the estimate.
    """
    numbers = np.asarray(values)
    picked = np.random.default_rng(seed).integers(len(numbers), size=(RESAMPLES, len(numbers)))
    low, high = np.quantile(np.median(numbers[picked], axis=1), [0.025, 0.975])
    return Estimate(float(np.median(numbers)), float(low), float(high))


@final
class Progress:
    """Says on stderr how far a stage is and how long it will take, at most every few seconds.

    Args:
        stage: what is being done.
        rounds: how many rounds it has.
        every: seconds between two lines.
    """

    def __init__(self, stage: str, rounds: int, every: float = 5.0) -> None:
        """Start the clock."""
        self._stage, self._rounds, self._every = stage, rounds, every
        self._started = self._said = time.monotonic()

    def after(self, done: int) -> None:
        """A round is done."""
        now = time.monotonic()
        if now - self._said < self._every:
            return
        self._said, left = now, (now - self._started) / done * (self._rounds - done)
        print(f"{self._stage}: {done} of {self._rounds} rounds, about {left:.0f} s left", file=sys.stderr, flush=True)


@final
@dataclass(frozen=True)
class Rounds:
    """How often and in which way things are timed.

    Attributes:
        pairs: how many rounds; in each, every contender is timed once, in an order drawn anew.
        calls: how many calls one sample is; the sample is their mean.
        seed: of the order.
    """

    pairs: int
    calls: int
    seed: int

    def time(self, stage: str, contenders: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
        """CPU seconds a call of each contender, round by round.

        Args:
            stage: what is being done, for the progress.
            contenders: what is called, by name.

        Returns:
            as many samples a contender as there are rounds.
        """
        samples: dict[str, list[float]] = {name: [] for name in contenders}
        order, draw, progress = list(contenders), random.Random(self.seed), Progress(stage, self.pairs)
        if self.calls > 1:  # a long call needs no warming: each has run once when its result was checked
            for call in contenders.values():
                call()
                call()
        gc.collect()
        for done in range(1, self.pairs + 1):
            draw.shuffle(order)
            gc.collect(1)
            gc.disable()
            for name in order:
                samples[name].append(self._sample(contenders[name]))
            gc.enable()
            progress.after(done)
        return samples

    def _sample(self, call: Callable[[], Any]) -> float:
        started = time.process_time()
        for _ in range(self.calls):
            call()
        return (time.process_time() - started) / self.calls
