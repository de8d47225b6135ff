"""Information flow routes: how much of what each part reads comes from whom, by distance in the stream.

A source is near to what a destination reads if taking it away leaves little. One forward pass on the clean prompts, no
gradient, and nothing of the behaviour: neither answers nor corrupt prompts are looked at.

    score(u -> v) = near(u, v) / sum_w near(w, v)        near(u, v) = max(|x_v| - |x_v - A[u]|, 0),  |.| the L1 norm;
        mean over all real tokens of the clean prompts

Source: Ferrando and Voita 2024, https://arxiv.org/abs/2403.00824. The paper grows a circuit from the logits backwards,
each time along the best edge: `scores.circuit(n, greedy=True)`, and so does the benchmark. Scores are shares, between 0
and 1, and say how much flows and not whether it helps, unlike those of `EAP`. A head's query, key and value read the
same stream, so their edges score the same.
"""

from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from interpose.mediators.base import Mediator
from interpose.mediators.edges import Edges
from interpose.methods.base import Method
from interpose.search.information_flow import information_flow
from interpose.tasks.base import Pairs
from interpose.trace import Model


@final
@dataclass(frozen=True)
class InformationFlowRoutes(Method):
    """The share of what a destination reads that each source accounts for, by L1 distance.

    Attributes:
        batch_size: prompts in one forward pass.
    """

    cut: ClassVar[str] = "greedy"
    batch_size: int = 16

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score an edge; see `Method.score`."""
        if not isinstance(mediators, Edges):
            raise self.refuse(mediators, "It scores Edges(); for other units use ActivationPatching().")
        return information_flow(model, pairs, mediators, self.batch_size)
