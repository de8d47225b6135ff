"""Gates: from a parameter of each unit to how open the unit is, between 0 and 1, perhaps by chance.

A gate is a frozen dataclass. What it computes are functions of torch only, so that the same lines run on plain tensors
and, recorded in a block, on values of a graph. Where chance has a part, the random numbers are drawn outside and given
to the gate, so that a graph stays the same from step to step.

| gate | how open a unit with parameter t is |
|---|---|
| `Clamp` | t itself, which is put back between 0 and 1 after each step |
| `Sigmoid` | sigmoid(t / temperature) |
| `HardConcrete` | a stretched sigmoid of t and noise, cut off at 0 and 1, so that both ends are hit exactly |
| `UniformWindow` | 1 or 0 by chance, with probability about sigmoid(t); between only in a window of width p(1 - p) |
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.errors import SearchError


@dataclass(frozen=True)
class Gate(ABC):
    """How open units are. Its fields are its settings; parameters are given to it."""

    @property
    @abstractmethod
    def start(self) -> float:
        """The parameter that every unit begins with."""

    @property
    @abstractmethod
    def each_pair(self) -> bool:
        """Whether each pair of a step has a mask of its own, [pair, unit]; else one serves all, [unit]."""

    @abstractmethod
    def draw(self, shape: tuple[int, int], random: torch.Generator, progress: float) -> dict[str, Tensor]:
        """What a step needs beside the parameters.

        Args:
            shape: how many pairs and units there are.
            random: where chance comes from.
            progress: how much of the training is done, from 0 to 1.
        """

    @abstractmethod
    def mask(self, parameters: Any, drawn: Mapping[str, Any]) -> Any:
        """How open the units are in one step [unit] or [pair, unit], between 0 and 1."""

    @abstractmethod
    def size(self, parameters: Any) -> Any:
        """How open the units are without chance [unit]: what regularisers make small, and what scores are."""

    @abstractmethod
    def project(self, parameters: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
        """Where parameters end up after a step."""


@final
@dataclass(frozen=True)
class Clamp(Gate):
    """The parameter is the mask, and is put back between 0 and 1 after each step (https://arxiv.org/abs/2307.03637).

    Attributes:
        open: how open every unit is at first.
    """

    open: float = 1.0

    @property
    def start(self) -> float:
        """See `Gate.start`."""
        return self.open

    @property
    def each_pair(self) -> bool:
        """One mask for all pairs."""
        return False

    def draw(self, shape: tuple[int, int], random: torch.Generator, progress: float) -> dict[str, Tensor]:  # noqa: ARG002
        """Nothing by chance."""
        return {}

    def mask(self, parameters: Any, drawn: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """The parameters."""
        return parameters

    def size(self, parameters: Any) -> Any:
        """The parameters."""
        return parameters

    def project(self, parameters: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
        """The nearest values from 0 to 1."""
        return parameters.clamp(0, 1)


@final
@dataclass(frozen=True)
class Sigmoid(Gate):
    """A sigmoid, which may become steeper on the way (as in desiderata-based and differential binary masking).

    Attributes:
        first: the parameter that every unit begins with.
        temperature: what parameters are divided by at the first step.
        last_temperature: the same at the last step, linear in between; None for no change.
    """

    first: float = 0.0
    temperature: float = 1.0
    last_temperature: float | None = None

    @property
    def start(self) -> float:
        """See `Gate.start`."""
        return self.first

    @property
    def each_pair(self) -> bool:
        """One mask for all pairs."""
        return False

    def draw(self, shape: tuple[int, int], random: torch.Generator, progress: float) -> dict[str, Tensor]:  # noqa: ARG002
        """The temperature of this step."""
        last = self.temperature if self.last_temperature is None else self.last_temperature
        return {"temperature": torch.tensor(self.temperature + progress * (last - self.temperature))}

    def mask(self, parameters: Any, drawn: Mapping[str, Any]) -> Any:
        """The sigmoid at this step's temperature."""
        return torch.sigmoid(parameters / drawn["temperature"])

    def size(self, parameters: Any) -> Any:
        """The sigmoid at temperature 1."""
        return torch.sigmoid(parameters)

    def project(self, parameters: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
        """Where they are."""
        return parameters


@final
@dataclass(frozen=True)
class HardConcrete(Gate):
    """The hard concrete distribution of Louizos, Welling and Kingma 2018, https://arxiv.org/abs/1712.01312.

        s = sigmoid((log u - log(1 - u) + t) / temperature)       u uniform between 0 and 1
        mask = s (high - low) + low, cut off at 0 and at 1

    One mask is drawn a step. Its size is the probability that it is not 0: sigmoid(t - temperature log(-low / high)).

    Attributes:
        open: how open every unit is at first, without noise and were the temperature 1. It is so as published; at a
            lower temperature units begin nearer to the ends.
        temperature: how far masks are from being 0 or 1.
        low: below 0, the lower end of the stretched sigmoid.
        high: above 1, its upper end.

    Raises:
        SearchError: `open` is not between the two ends.
    """

    open: float = 0.9
    temperature: float = 2 / 3
    low: float = -0.1
    high: float = 1.1

    def __post_init__(self) -> None:
        """Check the range."""
        if not self.low < self.open < self.high:
            raise SearchError(
                f"A gate begins between {self.low:g} and {self.high:g}, the ends of its stretched sigmoid, but here it "
                f"is {self.open:g} open. Write for example 0.9."
            )

    @property
    def start(self) -> float:
        """The parameter whose stretched sigmoid is `open`."""
        share = (self.open - self.low) / (self.high - self.low)
        return math.log(share / (1 - share))

    @property
    def each_pair(self) -> bool:
        """One mask for all pairs of a step."""
        return False

    def draw(self, shape: tuple[int, int], random: torch.Generator, progress: float) -> dict[str, Tensor]:  # noqa: ARG002
        """Noise for each unit: log u - log(1 - u)."""
        return {"noise": _uniform(shape[1:], random).logit()}

    def mask(self, parameters: Any, drawn: Mapping[str, Any]) -> Any:
        """A draw from the distribution."""
        soft = torch.sigmoid((parameters + drawn["noise"]) / self.temperature)
        return torch.clamp(soft * (self.high - self.low) + self.low, 0, 1)

    def size(self, parameters: Any) -> Any:
        """The probability that a unit is open at all."""
        return torch.sigmoid(parameters - self.temperature * math.log(-self.low / self.high))

    def project(self, parameters: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
        """Where they are."""
        return parameters


@final
@dataclass(frozen=True)
class UniformWindow(Gate):
    """The law of uniform gradient sampling (Li and Janson 2024, https://arxiv.org/abs/2409.09951); each pair its own.

        p = sigmoid(t), w = p (1 - p), u uniform between 0 and 1
        mask = 1 - ((u - p) / w + 1/2), cut off at 0 and at 1

    so that it is 1 with probability p - w/2, 0 with probability 1 - p - w/2, and else uniform between. Only draws
    inside the window have a slope. The slope by p is the mean of the loss's slope over those draws: a unit's 1/w is
    left away, and in its place stands pairs / draws inside, which is as large on average and varies less.

    Attributes:
        first: the parameter that every unit begins with.
    """

    first: float = 1.0

    @property
    def start(self) -> float:
        """See `Gate.start`."""
        return self.first

    @property
    def each_pair(self) -> bool:
        """Each pair has a draw of its own."""
        return True

    def draw(self, shape: tuple[int, int], random: torch.Generator, progress: float) -> dict[str, Tensor]:  # noqa: ARG002
        """A uniform number for each pair and unit."""
        return {"noise": _uniform(shape, random)}

    def mask(self, parameters: Any, drawn: Mapping[str, Any]) -> Any:
        """A draw for each pair and unit."""
        still = torch.sigmoid(parameters).detach()
        window = still * (1 - still)
        # The value is p; the slope is that of w p, so that the division by w below cancels.
        chance = still + window * (torch.sigmoid(parameters) - still)
        place = (drawn["noise"] - chance) / window + 0.5
        mask = 1 - torch.clamp(place, 0, 1)
        inside = ((place > 0) & (place < 1)).to(mask.dtype)
        weight = inside.shape[0] / torch.clamp(inside.sum(0), min=1)
        return mask.detach() + weight * (mask - mask.detach())

    def size(self, parameters: Any) -> Any:
        """The probability p."""
        return torch.sigmoid(parameters)

    def project(self, parameters: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
        """Where they are."""
        return parameters


def _uniform(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """Uniform numbers, never 0 nor 1."""
    return torch.rand(shape, generator=random, dtype=torch.float64).clamp(1e-7, 1 - 1e-7).float()
