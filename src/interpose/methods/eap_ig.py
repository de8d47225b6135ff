"""Edge attribution patching with integrated gradients (inputs).

The slope of the behaviour is averaged over runs whose embedding goes in equal steps from corrupt to clean, which finds
edges whose effect the slope at the clean run alone misses.

    score(u -> v) = -(A_corrupt[u] - A_clean[u]) . 1/n sum_k dm/dx_v  at embedding  z' + k/n (z - z'),  k = 0 .. n-1

Source: Hanna, Pezzelle and Belinkov 2024, https://arxiv.org/abs/2403.17806. With many steps the scores of the edges
that leave `input` add up to the whole difference between the clean and the corrupt run. `EAP` is the same with the
slope of the clean run only.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.mediators.base import Mediator
from interpose.mediators.edges import Edges
from interpose.methods.base import Method
from interpose.search.attribution import attribute_edges
from interpose.tasks.base import Pairs
from interpose.trace import Model


@final
@dataclass(frozen=True)
class EAPIG(Method):
    """Edge attribution patching with integrated gradients: the slope averaged on the way from corrupt to clean.

    Attributes:
        steps: runs between the corrupt embedding (included) and the clean one (not included).
        batch_size: pairs in one forward pass.
    """

    steps: int = 5
    batch_size: int = 16

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score an edge; see `Method.score`."""
        if not isinstance(mediators, Edges):
            raise self.refuse(mediators, "It scores Edges(); for other units use ActivationPatching().")
        if self.steps < 1:
            raise SearchError(f"EAPIG needs at least one step, but steps is {self.steps}.")
        mixtures = [step / self.steps for step in range(self.steps)]
        return attribute_edges(model, pairs, mediators, mixtures, self.batch_size)
