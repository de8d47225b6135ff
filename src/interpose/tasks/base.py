"""What every task offers: counterfactual pairs, a causal model, and how well a model does it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import getdoc

from interpose.tasks._accuracy import Accuracy as Accuracy, Rate as Rate, measure
from interpose.tasks._align import Tokenized as Tokenized, pairs as pairs
from interpose.tasks._causal import CausalModel as CausalModel, Variable as Variable
from interpose.tasks._files import read_pairs as read_pairs, write_pairs as write_pairs
from interpose.tasks._pairs import Pairs as Pairs
from interpose.trace.model import Model

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Task(ABC):
    """A behaviour to be explained: its fields are its settings, and its docstring is its description."""

    @property
    @abstractmethod
    def counterfactuals(self) -> Mapping[str, str]:
        """The ways in which a prompt can be changed, each with what it does; the first is the default."""

    @abstractmethod
    def pairs(
        self, model: Tokenized, n: int = 64, seed: int = 0, split: str = "train", counterfactual: str | None = None
    ) -> Pairs:
        """Draw counterfactual pairs.

        The same settings, tokenizer, n, seed and split always give the same clean prompts, whatever the counterfactual.

        Args:
            model: the model whose tokenizer is used.
            n: how many pairs; no two have the same clean prompt.
            seed: another seed, another draw.
            split: "train", "validation" or "test"; they share no material.
            counterfactual: one of `counterfactuals`; the first if left out.

        Returns:
            The pairs.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer does not suit the task.
        """

    @abstractmethod
    def causal_model(self) -> CausalModel:
        """How the task might be solved, as a small model of named variables."""

    def accuracy(self, model: Model, pairs: Pairs, batch_size: int = 16) -> Accuracy:
        """How often `model` is right on the clean prompts of `pairs`.

        Args:
            model: the model to measure.
            pairs: what it is measured on.
            batch_size: prompts in one forward pass; lower it when memory is short.

        Returns:
            Two rates with 95 % intervals, and which pairs are right.

        Raises:
            TaskError: if there are no pairs.
        """
        return measure(model, pairs, batch_size)

    @property
    def description(self) -> str:
        """What the task is, in words."""
        return getdoc(type(self)) or ""
