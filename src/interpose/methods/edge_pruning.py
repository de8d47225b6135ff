"""Edge pruning: fit gates of edges, drawn from hard concrete distributions, so that few give the whole model's output.

Each edge has a gate that is exactly 1 or exactly 0 most of the time and a mixture in between otherwise; an edge whose
gate is below 1 carries, for the rest, what it carries on the corrupt prompt. The gates' parameters are fitted so that
the masked run has the whole model's next-token distribution and few gates are open.

    score(edge) = P(gate > 0)    minimising   mean of KL(whole || masked)  +  sparsity * sum over edges of P(gate > 0)

Source: Bhaskar et al. 2024, https://arxiv.org/abs/2406.16778, with the gates of Louizos et al. 2018 and the settings of
subnetwork probing, Cao et al. 2021, https://arxiv.org/abs/2104.03514. The price is the expected number of open edges;
the targets for it that Bhaskar et al. reach by Lagrange multipliers are not used. `UGS` asks the same with another law
of its gates, and gives each pair of a step a mask of its own.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from interpose.mediators.base import Mediator
from interpose.mediators.edges import Edges
from interpose.methods.base import Method
from interpose.search.gates import HardConcrete
from interpose.search.mask import Masked, fit_mask
from interpose.search.mixing import EdgeMixing, Mix
from interpose.search.objective import KL, PerUnit
from interpose.search.training import Optimiser
from interpose.tasks.base import Pairs
from interpose.trace import Model


@final
@dataclass(frozen=True)
class EdgePruning(Method):
    """Edge pruning: hard-concrete gates on edges, fitted until few are open and the model still does what it did.

    Attributes:
        steps: steps of the optimiser, one forward and one backward pass each.
        sparsity: the price of one edge, in nats of KL: what it must be worth to stay.
        lr: learning rate of Adam, on the logarithm of a gate's odds.
        start: how open every gate is at first; see `open` of `HardConcrete` in `search/gates.py`.
        pairs_per_step: pairs in one step.
        seed: of the order in which pairs are taken, and of the gates' noise.
    """

    steps: int = 500
    sparsity: float = 1e-3
    lr: float = 0.1
    start: float = 0.9
    pairs_per_step: int = 16
    seed: int = 0

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score an edge, from 0 to 1; see `Method.score`."""
        if not isinstance(mediators, Edges):
            raise self.refuse(mediators, "It scores Edges(); for other units use DCM() or ActivationPatching().")
        optimiser, gate = Optimiser(self.lr, self.steps), HardConcrete(self.start)
        masked = Masked(model, pairs, EdgeMixing(model, pairs, mediators, Mix()), KL(), self.pairs_per_step)
        return fit_mask(masked, gate, PerUnit(self.sparsity), optimiser, self.seed, "pruning edges")
