"""Bootstrap intervals for ratios of means: resample the examples (and the draws of a control), then divide.

Every number in a proof is made from the same resampled examples, so that numbers can be compared. Means over examples
come before the ratio, as in the MIB circuit track.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.metrics.faithfulness import faithfulness


@dataclass(frozen=True)
class Estimate:
    """A number and the percentile bootstrap interval around it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        # z: no minus sign before a zero that only rounding made negative.
        return f"{self.value:z.3f} [{self.low:z.3f}, {self.high:z.3f}]"


class Sampled(NamedTuple):
    """A curve over sizes, and the same curve from each resample."""

    value: Float[Tensor, "sizes"]
    samples: Float[Tensor, "resamples sizes"]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Sampled":
        """Apply a function of whole curves, such as an area, to the curve and to every resample."""
        return Sampled(function(self.value), function(self.samples))


def resample(count: int, resamples: int, seed: int, *, picks: int | None = None) -> Float[Tensor, "resamples count"]:
    """Weights of `count` things in each resample with replacement; every row sums to one.

    Args:
        count: how many things there are.
        resamples: how many rows.
        seed: of the random numbers.
        picks: how many are taken for each resample; `count` unless told.
    """
    picks = picks or count
    picked = torch.randint(count, (resamples, picks), generator=torch.Generator().manual_seed(seed))
    times = torch.zeros(resamples, count, dtype=torch.float64)
    times.scatter_add_(1, picked, torch.ones_like(picked, dtype=torch.float64))
    return times / picks


def estimate(value: Float[Tensor, ""], samples: Float[Tensor, "resamples"], level: float = 0.95) -> Estimate:
    """The value with the interval that holds the middle `level` of its resamples."""
    tail = (1 - level) / 2
    ends = torch.nanquantile(samples.double(), torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return Estimate(float(value), float(ends[0]), float(ends[1]))


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Resampled examples of one model on one task.

    Attributes:
        full: the metric of the whole model on each example.
        empty: the metric of the empty circuit, the corrupted run, on the same examples.
        resamples: how many times the examples are drawn anew.
        level: share of resamples that an interval holds.
        seed: of the resampling.

    Raises:
        SearchError: there are fewer than two examples, or the difference between the two metrics is not clearly
            other than zero, so that no ratio over it means anything.
    """

    full: Float[Tensor, "examples"]
    empty: Float[Tensor, "examples"]
    resamples: int = 2000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.full) < 2:
            raise SearchError(f"An interval needs at least 2 examples, but there is {len(self.full)}. Take more.")
        # Also refuses the case without any difference, in its own words.
        faithfulness(self.full.double().mean(), self.full.double().mean(), self.empty.double().mean())
        span = self.mean(self.full - self.empty)
        if span.low <= 0 <= span.high:
            raise SearchError(
                f"The whole model and the corrupted run cannot be told apart on these {len(self.full)} examples: their "
                f"metrics differ by {span}. Take more examples, or keep only those that the model gets right."
            )

    @cached_property
    def weights(self) -> Float[Tensor, "resamples examples"]:
        """How much each example counts in each resample."""
        return resample(len(self.full), self.resamples, self.seed)

    def mean(self, metric: Float[Tensor, "examples"]) -> Estimate:
        """The mean of a metric over examples."""
        metric = metric.double()
        return estimate(metric.mean(), self.weights @ metric, self.level)

    def faithfulness(self, metric: Float[Tensor, "draws sizes examples"]) -> Sampled:
        """Faithfulness of circuits at several sizes.

        Args:
            metric: on each example, for each size and for each draw of a control (one draw for a circuit). The mean
                over draws is taken; where there are several they are resampled too, beside the examples.
        """
        metric, weights = metric.double(), self.weights
        # One draw fewer than there are: with so few, resampling all of them would make the interval too narrow.
        draws = resample(len(metric), self.resamples, self.seed + 1, picks=max(len(metric) - 1, 1))
        means = torch.einsum("dse,re->rds", metric, weights)
        circuit = torch.einsum("rds,rd->rs", means, draws)
        full, empty = weights @ self.full.double(), weights @ self.empty.double()
        # Unlike the function for one value, a resample may have no difference; nanquantile leaves it out.
        samples = (circuit - empty[:, None]) / (full - empty)[:, None]
        value = faithfulness(metric.mean((0, 2)), self.full.double().mean(), self.empty.double().mean())
        return Sampled(value, samples)
