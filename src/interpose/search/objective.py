"""What a mask is fitted to: a loss of the masked run, and a price for its size.

Each is a frozen dataclass. A loss says what it needs to know of each pair (`given`, made once) and gives one number a
pair from the masked run's logits at the last position, in a block. A price gives one number for the sizes of all units.
Any class of this form will do in place of those here.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from interpose.search.behaviour import last_logits
from interpose.tasks.base import Pairs
from interpose.trace import Model

Tokens = Literal["answers", "wrong"]


@dataclass(frozen=True)
class Loss(ABC):
    """What the masked run should do; low where it does."""

    @abstractmethod
    def given(self, model: Model, pairs: Pairs, batch_size: int) -> dict[str, Tensor]:
        """What it needs of each pair, by name; the first axis is the pairs'.

        Args:
            model: the model.
            pairs: all pairs.
            batch_size: pairs in one forward pass, where the model has to be asked.
        """

    @abstractmethod
    def __call__(self, logits: Any, given: Mapping[str, Any]) -> Any:
        """In a block: one number a pair [pair], from the logits at the last position [pair, vocabulary]."""


@final
@dataclass(frozen=True)
class Logit(Loss):
    """Minus the logit of one of a pair's tokens, or minus how far it lies above that of another.

    Attributes:
        of: the token whose logit is made high: `answers` or `wrong`, as `Pairs` has them.
        less: the token whose logit is made low; None for none.
    """

    of: Tokens = "answers"
    less: Tokens | None = "wrong"

    def given(self, model: Model, pairs: Pairs, batch_size: int) -> dict[str, Tensor]:  # noqa: ARG002
        """The tokens."""
        low = {} if self.less is None else {"low": getattr(pairs, self.less)}
        return {"high": getattr(pairs, self.of), **low}

    def __call__(self, logits: Any, given: Mapping[str, Any]) -> Any:
        """Minus the logit, or the logit difference."""
        high = logits.gather(1, given["high"].unsqueeze(1))[:, 0]
        return -high if self.less is None else logits.gather(1, given["low"].unsqueeze(1))[:, 0] - high


BEHAVIOUR = Logit("wrong", "answers")
"""logit(answer) - logit(wrong), the behaviour itself: what a mask that is to break it makes small."""


@final
@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Minus the logarithm of one token's probability.

    Attributes:
        of: the token that is made likely: `answers` or `wrong`, as `Pairs` has them.
    """

    of: Tokens = "answers"

    def given(self, model: Model, pairs: Pairs, batch_size: int) -> dict[str, Tensor]:  # noqa: ARG002
        """The token."""
        return {"likely": getattr(pairs, self.of)}

    def __call__(self, logits: Any, given: Mapping[str, Any]) -> Any:
        """Minus its log-probability."""
        return -torch.log_softmax(logits, -1).gather(1, given["likely"].unsqueeze(1))[:, 0]


@final
@dataclass(frozen=True)
class KL(Loss):
    """How far the next token's distribution is from the whole model's on the clean prompt, in nats.

    KL(whole || masked): the sum over the vocabulary of p log(p / q), of numbers of 32 bits at least. With fewer,
    logarithms of probabilities are off by more than an edge is worth, and the divergence can be negative.
    """

    def given(self, model: Model, pairs: Pairs, batch_size: int) -> dict[str, Tensor]:
        """The whole model's log-probabilities [pair, vocabulary]."""
        parts = list(pairs.batches(batch_size))
        with model.trace(run=False) as t, t.world("clean", parts[0].clean_batch()):
            logits = last_logits(model).to(torch.promote_types(model.dtype, torch.float32))
            whole: Any = torch.log_softmax(logits, -1)
            whole.save("whole")
        feeds = [t.feed.with_({"clean": part.clean_batch()}) for part in parts]
        return {"whole": torch.cat([run["whole"] for run in model.backend.run_many([t.graph] * len(feeds), feeds)])}

    def __call__(self, logits: Any, given: Mapping[str, Any]) -> Any:
        """The divergence."""
        whole = given["whole"]
        return (whole.exp() * (whole - torch.log_softmax(logits, -1))).sum(-1)


@dataclass(frozen=True)
class Price(ABC):
    """What a mask costs for its size."""

    @abstractmethod
    def __call__(self, sizes: Any) -> Any:
        """In a block: one number, from how open each unit is without chance [unit]."""


@final
@dataclass(frozen=True)
class PerUnit(Price):
    """So much a unit that is open, or a unit that is closed; in proportion where it is between.

    Attributes:
        weight: the price of one unit.
        closed: the units that are closed cost, in place of those that are open.
    """

    weight: float
    closed: bool = False

    def __call__(self, sizes: Any) -> Any:
        """The price of all units."""
        return self.weight * ((1 - sizes) if self.closed else sizes).sum()
