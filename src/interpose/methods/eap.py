"""Edge attribution patching.

The effect of cutting an edge is guessed from the slope of the behaviour at the clean run. One forward pass on each
prompt and one backward pass score every edge.

    score(u -> v) = -(A_corrupt[u] - A_clean[u]) . dm/dx_v        m = logit(answer) - logit(wrong)

Source: Syed, Rager and Conmy 2023, https://arxiv.org/abs/2310.10348. It is the first-order term of exact activation
patching of edges, and equals it where the model is linear; `EAPIG` averages the slope on the way to the corrupt run,
where a saturated behaviour hides it at the clean one.
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
class EAP(Method):
    """Edge attribution patching: the slope of the behaviour at the clean run, for every edge at once.

    Attributes:
        batch_size: pairs in one forward pass.
    """

    batch_size: int = 16

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score an edge; see `Method.score`."""
        if not isinstance(mediators, Edges):
            raise self.refuse(mediators, "It scores Edges(); for other units use ActivationPatching().")
        return attribute_edges(model, pairs, mediators, [1.0], self.batch_size)
