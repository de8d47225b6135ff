"""Node attribution patching with integrated gradients.

The slope of the behaviour at each unit's own value is averaged over runs whose embedding goes in equal steps from the
corrupt to the clean prompt.

    score(unit) = -(a_corrupt - a_clean) . 1/n sum_k dm/da  at embedding  z' + k/n (z - z'),  k = 1 .. n

Source: Hanna, Pezzelle and Belinkov 2024, https://arxiv.org/abs/2403.17806; as NAP-IG in Mueller et al. 2025,
https://arxiv.org/abs/2504.13151. The clean run is one of the steps and the corrupt run is not, so that one step is
`AttributionPatching`; `EAPIG` has it the other way round, as its source does. With many steps the score of `input`
among `Nodes()` is the whole difference between the clean and the corrupt run.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.mediators.base import Mediator, PlaceMediator
from interpose.mediators.edges import Edges
from interpose.methods.base import Method
from interpose.search.place_attribution import attribute_places
from interpose.tasks.base import Pairs
from interpose.trace import Model


@final
@dataclass(frozen=True)
class NAPIG(Method):
    """Node attribution with integrated gradients: the slope at each unit averaged on the way from corrupt to clean.

    Attributes:
        steps: runs between the corrupt embedding (not included) and the clean one (included).
        batch_size: pairs in one forward pass.
    """

    steps: int = 5
    batch_size: int = 16

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score a unit; see `Method.score`."""
        if not isinstance(mediators, PlaceMediator):
            other = "for Edges() use EAPIG()" if isinstance(mediators, Edges) else "for others use ActivationPatching()"
            raise self.refuse(mediators, f"It scores places (Heads(), Neurons(), ...); {other}.")
        if self.steps < 1:
            raise SearchError(f"NAPIG needs at least one step, but steps is {self.steps}.")
        return attribute_places(model, pairs, mediators.places(model, pairs), self.steps, self.batch_size)
