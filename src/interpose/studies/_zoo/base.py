"""What a recipe says: what the model is, its first weights, how it is trained, and how it is measured.

A recipe is one file here, found by its name: `interpose zoo train induction-by-hand` follows the class
`InductionByHand` in `induction_by_hand.py`. A model whose weights are computed is a `Recipe`; one that is trained is a
`Trained`, whose loss is asked for one step at a time. What a step draws at random comes from the generator that it is
given, which depends on the seed and the number of the step only; so a run that was cut off goes on with the very
numbers that it would have seen.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from interpose import discovery
from interpose.loading.cards import Score, Truth, Vocabulary
from interpose.tasks.base import Accuracy, Pairs, Rate, Task
from interpose.trace import Model

RECIPES = "interpose.studies._zoo"


@dataclass(frozen=True)
class Draft:
    """The part of a card that is known before the model is made.

    Attributes:
        what: one sentence that says what the model is.
        architecture: its `model_type`.
        config: the settings of `interpose.build`.
        tokenizer: how text becomes tokens.
        task: name of the task that it is made for.
        data: what it is trained on, or what its weights are computed from.
        note: what a reader of a result must know about these weights.
        steps: how many steps of an optimiser are taken.
        truth: what is known of how it works.
        licence: SPDX name.
    """

    what: str
    architecture: str
    config: Mapping[str, Any]
    tokenizer: Vocabulary
    task: str
    data: str
    note: str
    steps: int = 0
    truth: Truth | None = None
    licence: str = "Apache-2.0"


@dataclass(frozen=True)
class Training:
    """How the weights are changed.

    Attributes:
        optimiser: over the parameters that are trained; its first rate is the base of `rate`.
        loss: from the number of a step, counted from 0, and a generator on the CPU, to the number that is made
            smaller, with its derivatives.
        rate: by how much each step multiplies the learning rate.
        clip: the largest norm that the gradient may have, or None.
    """

    optimiser: torch.optim.Optimizer
    loss: Callable[[int, torch.Generator], Tensor]
    rate: Callable[[int], float] = field(default=lambda _: 1.0)
    clip: float | None = None


class Recipe(ABC):
    """How a model of the zoo is made."""

    @abstractmethod
    def draft(self) -> Draft:
        """What is known of the model before it is made."""

    @abstractmethod
    def network(self, seed: int) -> torch.nn.Module:
        """The stock network with its first weights, which are its last where nothing is trained.

        Args:
            seed: of what is drawn at random.
        """

    @abstractmethod
    def evaluate(self, model: Model, seed: int) -> dict[str, Score]:
        """Measure a finished model.

        Args:
            model: the model.
            seed: of the examples.

        Returns:
            what was measured, by name; the same for every seed, up to the intervals.
        """


class Trained(Recipe):
    """How a model of the zoo is trained."""

    @abstractmethod
    def training(self, model: Model, steps: int) -> Training:
        """What is done at each step.

        Args:
            model: the model with its first weights, in training mode, its parameters with derivatives.
            steps: how many steps there will be.
        """


def recipe(name: str) -> Recipe:
    """The recipe of a model; raises UsageError, with those that there are, where there is none."""
    return discovery.load(RECIPES, name)()


def score(rate: Rate) -> Score:
    """A share of examples as a score on a card."""
    low, high = rate.interval
    return Score(round(rate.value, 6), round(low, 6), round(high, 6), rate.n)


def task_scores(model: Model, task: Task, seed: int, n: int = 512) -> dict[str, Score]:
    """How often a model is right on a task's test split: `prefers` the answer to the wrong one, has it `first` of all.

    Args:
        model: the model.
        task: the task.
        seed: of the pairs.
        n: how many pairs.
    """
    pairs: Pairs = task.pairs(model, n=n, seed=seed, split="test")
    found: Accuracy = task.accuracy(model, pairs, batch_size=64)
    return {"prefers": score(found.prefers), "first": score(found.first)}
