"""Activation patching: run the clean prompt with one unit's value from the corrupt prompt, for each unit in turn.

    score(unit) = m(clean run) - m(clean run with the unit's corrupt value)        m = logit(answer) - logit(wrong)

With `ablation` the unit takes another value than the corrupt one: zero, or its mean.

Source: Vig et al. 2020, https://arxiv.org/abs/2004.12265; Wang et al. 2022, https://arxiv.org/abs/2211.00593. This is
the exact effect of each unit by itself; `EAP` is its first-order guess for edges. `CausalTracing` goes the other way:
it restores one unit in the corrupt run, and so asks whether the unit is enough, not whether it is needed.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.mediators.base import Mediator, PlaceMediator, Unit, sites_of
from interpose.mediators.edges import Edges
from interpose.methods.base import Method
from interpose.search.ablation import Held
from interpose.search.edge_sweep import cut_each
from interpose.search.place_patching import patch_each
from interpose.search.progress import track
from interpose.tasks.base import Pairs
from interpose.trace import Model


@final
@dataclass(frozen=True)
class ActivationPatching(Method):
    """The exact effect of giving each unit its corrupt value: one forward pass a unit.

    Attributes:
        batch_size: pairs in one forward pass.
        ablation: what a unit is given: its value on the corrupt prompt (`counterfactual`), `zero`, its `mean` over all
            real tokens of the clean prompts, or its mean at each position (`mean-positional`).
    """

    batch_size: int = 16
    ablation: str = "counterfactual"

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score a unit; see `Method.score`."""
        if isinstance(mediators, Edges):
            cut = cut_each(model, pairs, mediators, self.batch_size, self.ablation)
            return (cut.whole - cut.without).float()
        if isinstance(mediators, PlaceMediator):
            return self._places(model, pairs, mediators.places(model, pairs))
        raise self.refuse(mediators, "It patches places (Heads(), Streams(), ...) and Edges().")

    def _places(self, model: Model, pairs: Pairs, places: tuple[Unit, ...]) -> Float[Tensor, " units"]:
        total = torch.zeros(1 + len(places), dtype=torch.float64)
        parts = list(pairs.batches(self.batch_size))
        held = Held(model, sites_of(places), pairs, self.ablation, self.batch_size)
        runs = (run for part in parts for run in enumerate(patch_each(model, part, places, held)))
        for unit, patched in track(runs, len(parts) * len(total), "patching units"):
            total[unit] += float(patched.double().sum())
        return ((total[0] - total[1:]) / len(pairs)).float()
