"""Edge attribution patching with integrated gradients (activations).

In place of the embedding, every part of the network in turn goes in equal steps from its corrupt to its clean output,
while all else is as on the clean prompt; the slope is averaged over all of these runs.

    score(u -> v) = -(A_corrupt[u] - A_clean[u]) . 1/(n (2L + 1)) sum_group sum_k dm/dx_v
        with the group's output at  corrupt + k/n (clean - corrupt),  k = 1 .. n;  groups: input, attention and MLP of
        each of the L layers

Source: Marks et al. 2024, https://arxiv.org/abs/2403.19647 (the path); Mueller et al. 2025,
https://arxiv.org/abs/2504.13151 (for edges). A group that is held passes no slope on, so that an edge loses the runs in
which all its ways to the logits are held: on a linear model the score is the mean, over groups, of the exact effect
while the group is held. `EAPIG` lets only the embedding go that way, at a 2L + 1 times smaller cost.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.mediators.base import Mediator
from interpose.mediators.edges import Edges
from interpose.methods.base import Method
from interpose.search.attribution import Point, attribute_edges
from interpose.tasks.base import Pairs
from interpose.trace import Model


@final
@dataclass(frozen=True)
class EAPIGActivations(Method):
    """Edge attribution patching with integrated gradients along every part's own output, one part at a time.

    Attributes:
        steps: runs for each part, the last of them with its clean output.
        batch_size: pairs in one forward pass.
    """

    steps: int = 5
    batch_size: int = 16

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score an edge; see `Method.score`."""
        if not isinstance(mediators, Edges):
            raise self.refuse(mediators, "It scores Edges(); for other units use ActivationPatching().")
        if self.steps < 1:
            raise SearchError(f"EAPIGActivations needs at least one step, but steps is {self.steps}.")
        parts = [f"layers.{layer}.{part}.output" for layer in range(model.sizes().layers) for part in ("attn", "mlp")]
        points = [Point(step / self.steps, site) for site in ("embed", *parts) for step in range(1, self.steps + 1)]
        return attribute_edges(model, pairs, mediators, points, self.batch_size)
