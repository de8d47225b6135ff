"""The loop in which parameters are fitted: an optimiser of torch, told the gradient of each step.

Gradients are values of a block, so that a loop here needs no network and knows of none: it hands out parameters and is
handed their slope. Nothing is kept in between, and no global random state is touched.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpose.errors import SearchError
from interpose.search.progress import track


@final
@dataclass(frozen=True)
class Optimiser:
    """How parameters are moved, step by step, and when that ends.

    Attributes:
        lr: the learning rate of the first step.
        steps: how many steps are made, at most.
        betas: how long Adam remembers slopes and their squares.
        decoupled: AdamW in place of Adam; the two differ only where there is weight decay.
        weight_decay: how much of a parameter is taken off, a step and unit of learning rate.
        clip: the largest norm a slope may have, all parameters together; None for any.
        every: after so many steps the learning rate is multiplied by `factor`; 0 for never.
        factor: see `every`.
        patience: end when what the parameters say has changed once and then stayed for so many steps; 0 for never.

    Raises:
        SearchError: a setting out of its range.
    """

    lr: float = 0.1
    steps: int = 100
    betas: tuple[float, float] = (0.9, 0.999)
    decoupled: bool = False
    weight_decay: float = 0.0
    clip: float | None = None
    every: int = 0
    factor: float = 1.0
    patience: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.steps < 1:
            raise SearchError(f"Training needs at least one step, but steps is {self.steps}.")
        if not self.lr > 0:
            raise SearchError(f"Training needs a learning rate above 0, but it is {self.lr}.")
        if self.clip is not None and not self.clip > 0:
            raise SearchError(
                f"Slopes are clipped to a norm above 0, but clip is {self.clip}. Write None for no limit."
            )
        if self.every < 0 or self.patience < 0:
            raise SearchError(
                f"A number of steps is 0 or more, but every is {self.every} and patience is {self.patience}."
            )


def train(
    start: Float[Tensor, "..."],
    slope: Callable[[int, Tensor], Tensor],
    optimiser: Optimiser,
    project: Callable[[Tensor], Tensor],
    decided: Callable[[Tensor], Bool[Tensor, "..."]],
    what: str = "training",
) -> Float[Tensor, "..."]:
    """Move parameters against their slope.

    Args:
        start: where they begin; it is not changed.
        slope: from the number of a step and the parameters there to the gradient of what is made small.
        optimiser: how they move, and for how long.
        project: where parameters end up after a step, such as what keeps them between 0 and 1.
        decided: what the parameters say in the end, as yes or no; `Optimiser.patience` waits for it to stay.
        what: what is being done, for those who watch.

    Returns:
        the parameters after the last step.
    """
    parameters = start.detach().clone()
    kind = torch.optim.AdamW if optimiser.decoupled else torch.optim.Adam
    moving = kind([parameters], lr=optimiser.lr, betas=optimiser.betas, weight_decay=optimiser.weight_decay)
    rates = torch.optim.lr_scheduler.StepLR(moving, optimiser.every or optimiser.steps + 1, optimiser.factor)
    stable = _Stable(decided(parameters), optimiser.patience)
    for step in track(range(optimiser.steps), optimiser.steps, what):
        parameters.grad = slope(step, parameters).to(parameters)
        if optimiser.clip is not None:
            torch.nn.utils.clip_grad_norm_([parameters], optimiser.clip)
        moving.step()
        rates.step()
        parameters.copy_(project(parameters))
        if stable(decided(parameters)):
            break
    return parameters.detach()


@final
class _Stable:
    """Whether an answer, once it has changed, has stayed as it is for long enough."""

    def __init__(self, first: Tensor, patience: int) -> None:
        self._last, self._patience, self._same = first, patience, -1

    def __call__(self, now: Tensor) -> bool:
        if not torch.equal(now, self._last):
            self._last, self._same = now.clone(), 0
        elif self._same >= 0:
            self._same += 1
        return 0 < self._patience <= self._same


def draws(count: int, size: int, random: torch.Generator) -> Iterator[Int[Tensor, " size"]]:
    """Rows for one step after another: all of them in random order, then all of them in another.

    Args:
        count: how many rows there are.
        size: how many a step takes; more than there are takes some of them more than once.
        random: where the order comes from.

    Yields:
        the numbers of the rows of each step, without end.

    Raises:
        SearchError: a step takes no row.
    """
    if size < 1:
        raise SearchError(f"A step needs at least one pair, but pairs_per_step is {size}.")
    waiting = torch.empty(0, dtype=torch.long)
    while True:
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=random)])
        yield waiting[:size]
        waiting = waiting[size:]
