"""Desiderata-based masking: fit a mask that says which few units carry what the corrupt prompt changes.

Each unit has a mask between 0 and 1: at 1 it keeps its own value, at 0 it takes its value from the corrupt prompt, and
between it carries a mixture. The mask is fitted by gradient descent on many pairs at once, so that units are found
together, where patching looks at one at a time.

    score(unit) = 1 - mask(unit)      minimising  mean of b(masked run) + sparsity * sum over units of (1 - mask)

with the behaviour b = logit(answer) - logit(wrong), which corrupt values are to bring down, in as few units as
possible. With `keep` the question is the other way round: which few units, with all others corrupt, bring the
behaviour back? Then score(unit) = mask(unit), minimising mean of -b(masked run) + sparsity * sum of mask.

The two differ where units lie in a row: one with its corrupt value may be enough to break a way, and all of them have
to be clean to keep it. So for the edges of a whole circuit, write `keep=True`.

Source: Davies et al. 2023, https://arxiv.org/abs/2307.03637; settings of Prakash et al. 2024,
https://arxiv.org/abs/2402.14811. `ActivationPatching` measures each unit alone, exactly. `UGS` and `EdgePruning` fit
masks of edges under noise, against the whole model's distribution in place of two logits.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from interpose.mediators.base import Mediator
from interpose.methods.base import Method
from interpose.search.gates import Clamp
from interpose.search.mask import Masked, fit_mask, mixing_of
from interpose.search.mixing import Mix
from interpose.search.objective import BEHAVIOUR, Logit, PerUnit
from interpose.search.training import Optimiser
from interpose.tasks.base import Pairs
from interpose.trace import Model


@final
@dataclass(frozen=True)
class DCM(Method):
    """Desiderata-based masking: the few units whose corrupt values change the behaviour, found together.

    Attributes:
        steps: steps of the optimiser, one forward and one backward pass each.
        sparsity: the price of one unit, in logits: what it must change to be taken.
        lr: learning rate of Adam; a mask of a unit moves by about as much a step.
        pairs_per_step: pairs in one step.
        patience: end when the rounded mask has changed once and then stayed for so many steps; 0 for never.
        keep: find the few units that bring the behaviour back when all others are corrupt.
        seed: of the order in which pairs are taken.
    """

    steps: int = 100
    sparsity: float = 0.01
    lr: float = 0.1
    pairs_per_step: int = 32
    patience: int = 0
    keep: bool = False
    seed: int = 0

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score a unit, from 0 to 1; see `Method.score`."""
        optimiser = Optimiser(self.lr, self.steps, patience=self.patience)
        mixing = mixing_of(model, pairs, mediators, Mix())
        if mixing is None:
            raise self.refuse(
                mediators, "It masks places (Heads(), ...) and Edges(); others take ActivationPatching()."
            )
        loss = Logit("answers", "wrong") if self.keep else BEHAVIOUR
        masked = Masked(model, pairs, mixing, loss, self.pairs_per_step)
        mask = fit_mask(masked, Clamp(), PerUnit(self.sparsity, closed=not self.keep), optimiser, self.seed)
        return mask if self.keep else 1 - mask
