"""Edge attribution patching.

The effect of cutting an edge is guessed from the slope of the behaviour at the clean run. One forward pass on each
prompt and one backward pass score every edge.

    score(u -> v) = -(A_corrupt[u] - A_clean[u]) . dm/dx_v        m = logit(answer) - logit(wrong)

With `ablation` what takes the place of A_corrupt[u] is zero, or the mean of A[u]; the slope stays the same.

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
        ablation: what a cut edge would carry: what its source writes on the corrupt prompt (`counterfactual`), `zero`,
            the source's own `mean` over all real tokens of the clean prompts, or its mean at each position, counted
            from the last, over the prompts that are long enough (`mean-positional`).
    """

    batch_size: int = 16
    ablation: str = "counterfactual"

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score an edge; see `Method.score`."""
        if not isinstance(mediators, Edges):
            raise self.refuse(mediators, "It scores Edges(); for other units use ActivationPatching().")
        return attribute_edges(model, pairs, mediators, [1.0], self.batch_size, self.ablation)
