"""Attribution patching of places, which is also node attribution patching (NAP).

The effect of patching a unit is guessed from the slope of the behaviour at the unit's own value in the clean run. One
forward pass on each prompt and one backward pass score every unit: each head, each neuron, each position.

    score(unit) = -(a_corrupt - a_clean) . dm/da at the clean run        m = logit(answer) - logit(wrong)

Source: Nanda 2023, https://www.neelnanda.io/mechanistic-interpretability/attribution-patching; as NAP in Mueller et al.
2025, https://arxiv.org/abs/2504.13151. The two are one computation, over `Nodes()` or any other place. It is the
first-order term of `ActivationPatching`, and equal to it where the model is linear; `EAP` is the same for edges, and
`NAPIG` averages the slope on the way to the corrupt run. The slope is taken at what a unit gives, for an MLP too: at
what it reads, the product would be no effect of anything. At neuron level the units here are the MLPs' hidden neurons,
`Neurons()`.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from interpose.mediators.base import Mediator, PlaceMediator
from interpose.mediators.edges import Edges
from interpose.methods.base import Method
from interpose.search.place_attribution import attribute_places
from interpose.tasks.base import Pairs
from interpose.trace import Model


@final
@dataclass(frozen=True)
class AttributionPatching(Method):
    """Attribution patching of places (NAP): the slope of the behaviour at the clean run, for every unit at once.

    Attributes:
        batch_size: pairs in one forward pass.
        ablation: what a unit would be given: its value on the corrupt prompt (`counterfactual`), `zero`, its `mean`
            over all real tokens of the clean prompts, or its mean at each position (`mean-positional`).
    """

    batch_size: int = 16
    ablation: str = "counterfactual"

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score a unit; see `Method.score`."""
        if not isinstance(mediators, PlaceMediator):
            other = "for Edges() use EAP()" if isinstance(mediators, Edges) else "for others use ActivationPatching()"
            raise self.refuse(mediators, f"It scores places (Heads(), Neurons(), ...); {other}.")
        places = mediators.places(model, pairs)
        return attribute_places(model, pairs, places, 1, self.batch_size, self.ablation)
