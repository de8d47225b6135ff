"""Path patching: run the clean prompt with one sender's corrupt value on its way to some receivers, and nowhere else.

    score(sender -> receivers) = m(clean run) - m(clean run with the corrupt value on that path)

m = logit(answer) - logit(wrong). The receivers are set to what they read when the sender alone changes and all other
heads (and, unless paths lead through them, MLPs) keep their clean values; what is behind the receivers runs freely.

Source: Wang et al. 2022, https://arxiv.org/abs/2211.00593; Goldowsky-Dill et al. 2023, https://arxiv.org/abs/2304.05969.
`ActivationPatching` on `Nodes()` gives the sender's corrupt value to everyone who reads it; on `Edges()` it is
this, for one receiver at a time and not through MLPs. With several receivers none is changed by another on the
way, so the path is no set of edges that are cut together.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.mediators.base import Mediator
from interpose.mediators.paths import Paths
from interpose.methods.base import Method
from interpose.search.behaviour import first_difference
from interpose.search.path_patching import patch_paths
from interpose.search.progress import track
from interpose.tasks.base import Pairs
from interpose.trace import Model


@final
@dataclass(frozen=True)
class PathPatching(Method):
    """The exact effect of each path: one forward pass a sender, two where paths lead through MLPs.

    Attributes:
        batch_size: pairs in one forward pass.
    """

    batch_size: int = 16

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score a path; see `Method.score`."""
        if not isinstance(mediators, Paths):
            raise self.refuse(mediators, "It patches Paths(); for other units use ActivationPatching().")
        count, first = len(mediators.units(model)), first_difference(pairs)
        total = torch.zeros(1 + count, dtype=torch.float64)
        parts = list(pairs.batches(self.batch_size))
        runs = (run for part in parts for run in enumerate(patch_paths(model, part, mediators, first=first)))
        for unit, patched in track(runs, len(parts) * len(total), "patching paths"):
            total[unit] += float(patched.double().sum())
        return ((total[0] - total[1:]) / len(pairs)).float()
