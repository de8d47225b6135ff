"""Clean-corrupted attribution of edges: the slope averaged over the clean and the corrupt run.

Two forward and two backward passes: the ends of the way that `EAPIG` goes, and nothing between them.

    score(u -> v) = -(A_corrupt[u] - A_clean[u]) . 1/2 (dm/dx_v on the clean run + dm/dx_v on the corrupt run)

Source: Hanna, Pezzelle and Belinkov 2024, https://arxiv.org/abs/2403.17806. It is the trapezium rule with one step, so
that it is exact where the behaviour is a square, as `EAP` is where it is linear. Either run is that of its own prompt,
with one mask for both, since the prompts of a pair are aligned token by token.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from interpose.mediators.base import Mediator
from interpose.mediators.edges import Edges
from interpose.methods.base import Method
from interpose.search.attribution import attribute_edges
from interpose.tasks.base import Pairs
from interpose.trace import Model


@final
@dataclass(frozen=True)
class CleanCorrupted(Method):
    """Edge attribution by the mean of the slopes at the clean and at the corrupt run.

    Attributes:
        batch_size: pairs in one forward pass.
    """

    batch_size: int = 16

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score an edge; see `Method.score`."""
        if not isinstance(mediators, Edges):
            raise self.refuse(mediators, "It scores Edges(); for other units use ActivationPatching().")
        return attribute_edges(model, pairs, mediators, [0.0, 1.0], self.batch_size)
