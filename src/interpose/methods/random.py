"""Random scores: the floor that every other method has to clear.

Each unit's score is drawn anew from a standard normal distribution, whatever the model does.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.mediators.base import Mediator
from interpose.methods.base import Method
from interpose.tasks.base import Pairs
from interpose.trace import Model


@final
@dataclass(frozen=True)
class Random(Method):
    """Random scores, for any units: a control.

    Attributes:
        seed: another seed, other scores.
    """

    seed: int = 0

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score a unit; see `Method.score`."""
        count = len(mediators.units(model, pairs))
        return torch.randn(count, generator=torch.Generator().manual_seed(self.seed))
