"""How often a model gets a task right, with the uncertainty that the number of examples leaves."""

from dataclasses import dataclass
from math import floor, sqrt

import torch
from jaxtyping import Bool
from torch import Tensor

from interpose.errors import TaskError
from interpose.tasks._pairs import Pairs
from interpose.trace.model import Model

_Z = 1.959963984540054  # the normal distribution's 97.5 % point
_CHANCE = 0.5  # of two answers, one that is drawn blindly


@dataclass(frozen=True)
class Rate:
    """A share of examples, with Wilson's 95 % interval (Wilson 1927), which stays honest near 0 and 1.

    Attributes:
        count: how many examples it holds for.
        n: how many examples there were.
    """

    count: int
    n: int

    @property
    def value(self) -> float:
        """The share, between 0 and 1."""
        return self.count / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound of the share, 95 %."""
        spread = _Z * sqrt(self.value * (1 - self.value) / self.n + _Z**2 / (4 * self.n**2))
        middle, scale = self.value + _Z**2 / (2 * self.n), 1 + _Z**2 / self.n
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)

    @property
    def enough(self) -> int | None:
        """With how many examples the interval of a share like this one lies above one half; None where it never does.

        Wilson's lower bound is above one half where n > z^2 / (4 (share - 1/2)^2): with every example right from 4 on.
        """
        over = self.value - _CHANCE
        return floor(_Z**2 / (4 * over**2)) + 1 if over > 0 else None

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} [{low:.1%}, {high:.1%}]"


@dataclass(frozen=True, eq=False)
class Accuracy:
    """What a model gets right on the clean prompts.

    Attributes:
        prefers: how often logit(answer) > logit(wrong).
        first: how often the answer has the highest logit of the whole vocabulary.
        correct: which pairs are counted in `prefers`; `pairs.keep(accuracy.correct)` keeps those.
    """

    prefers: Rate
    first: Rate
    correct: Bool[Tensor, " n"]

    @property
    def n(self) -> int:
        """The number of examples."""
        return self.prefers.n

    @property
    def above_chance(self) -> bool:
        """Whether the model prefers the answer more often than a coin would: the interval lies above one half."""
        return self.prefers.interval[0] > _CHANCE

    def __str__(self) -> str:
        return f"prefers the answer {self.prefers}, ranks it first {self.first}, n={self.n}"


def measure(model: Model, pairs: Pairs, batch_size: int) -> Accuracy:
    """How often `model` is right on the clean prompts of `pairs`, `batch_size` at a time.

    Raises:
        TaskError: if there are no pairs.
    """
    if not len(pairs):
        raise TaskError("There are no pairs to measure: expected at least one.")
    prefers, first = [], []
    for part in pairs.to(model.device).batches(batch_size):
        with model.trace(part.clean_batch()):
            logits = model.logits[:, -1].save()
        answers, wrong = part.answers.to(logits.device), part.wrong.to(logits.device)
        rows = torch.arange(len(part), device=logits.device)
        prefers.append(logits[rows, answers] > logits[rows, wrong])
        first.append(logits.argmax(-1) == answers)
    correct, top = torch.cat(prefers).cpu(), torch.cat(first)
    return Accuracy(Rate(int(correct.sum()), len(pairs)), Rate(int(top.sum()), len(pairs)), correct)
