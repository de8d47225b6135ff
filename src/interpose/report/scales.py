"""From numbers to places on paper: axes and their ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """A straight axis, linear or logarithmic.

    Attributes:
        low: The value at `start`.
        high: The value at `stop`.
        start: Pixels.
        stop: Pixels.
        log: Whether distances are ratios.
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel a value lies at."""
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.stop - self.start)


def ticks(low: float, high: float, about: int = 6) -> tuple[float, ...]:
    """Round values between two bounds, some `about` of them.

    Args:
        low: Lower bound.
        high: Upper bound, above it.
        about: How many are wanted.

    Returns:
        Values that are multiples of 1, 2, 2.5 or 5 times a power of ten.
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(i * step, 10) for i in range(first, last + 1))


def room(values: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """The range that shows all values and at least the range given, with a little air."""
    least, most = min(low, *values), max(high, *values)
    air = 0.04 * (most - least)
    return least - air, most + air
