"""Direct logit attribution: what each part writes at the last position, as the final norm and the unembedding read it.

    score(unit) = (W[answer] - W[wrong]) . N(what the unit writes)

W is the unembedding, and N the final norm with its denominator frozen at this run's value, so that it is linear. So the
scores of all `Nodes()` add up to m = logit(answer) - logit(wrong), less what no node writes: biases of output
projections, of the final norm and of the unembedding, and learned position embeddings. Where a family caps its logits,
m is meant before the cap.

Source: Elhage et al. 2021, https://transformer-circuits.pub/2021/framework; Wang et al. 2022,
https://arxiv.org/abs/2211.00593. It sees only the direct way to the logits, and asks what is there, not what changes:
`PathPatching` on `Paths()` gives that way its corrupt value, denominator and all, and `ActivationPatching` counts what
later parts make of the unit too. With `contrast`, what the unit writes on the corrupt prompt is subtracted, so that
scores are of the size of theirs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.graph import Batch
from interpose.mediators.base import Mediator, PlaceMediator, Unit
from interpose.methods.base import Method
from interpose.search.directions import directions
from interpose.search.progress import track
from interpose.tasks.base import Pairs
from interpose.trace import Model

_WRITES = {"embed": "embed", "attn.z": "attn.result", "attn.output": "attn.output", "mlp.output": "mlp.output"}
"""Units by the site that they lie at, and the site that has what they write to the stream."""


@final
@dataclass(frozen=True)
class DirectLogitAttribution(Method):
    """Each part's own contribution to the logits, through the final norm as it is: one forward pass for all units.

    Attributes:
        contrast: subtract what the unit contributes on the corrupt prompt, with that run's own denominator. What is the
            same on both prompts then counts little, as it does where units are patched.
        batch_size: pairs in one forward pass.
    """

    contrast: bool = False
    batch_size: int = 16

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score a unit; see `Method.score`."""
        units = mediators.places(model, pairs) if isinstance(mediators, PlaceMediator) else ()
        if not units or not all(_writes(unit) and unit.whole and unit.neuron is None for unit in units):
            raise self.refuse(
                mediators,
                "It scores what writes to the stream, at all positions: Nodes(), Heads(), MLPs(), AttentionBlocks(); "
                "for other units use ActivationPatching().",
            )
        table = model.table()
        if table.mid_norm is not None or table.output_norm is not None:
            raise SearchError(
                "This model norms the stream itself after each addition (post-norm), so the logits are no sum of what "
                "parts write. Use ActivationPatching()."
            )
        total = torch.zeros(len(units), dtype=torch.float64)
        parts = list(pairs.batches(self.batch_size))
        for part in track(parts, len(parts), "reading contributions"):
            total += self._contributions(model, part, units, part.clean_batch())
            if self.contrast:
                total -= self._contributions(model, part, units, part.corrupt_batch())
        return (total / len(pairs)).float()

    def _contributions(
        self, model: Model, pairs: Pairs, units: tuple[Unit, ...], batch: Batch
    ) -> Float[Tensor, " units"]:
        """What each unit contributes on one batch, summed over its prompts."""
        written = _written(model, units, batch)
        direction = directions(model, pairs, written["stream"].double())
        found = []
        for unit in units:
            own = written[_writes(unit)]
            own = own if unit.head is None else own[:, unit.head]
            found.append((own.double() * direction).sum())
        return torch.stack(found).cpu()


def _writes(unit: Unit) -> str:
    """The site that has what a unit writes to the stream; empty where it writes nothing of its own."""
    site = unit.site
    local = site.name if site.layer is None else site.local
    writes = _WRITES.get(local, "")
    return writes if site.layer is None or not writes else f"layers.{site.layer}.{writes}"


def _written(model: Model, units: tuple[Unit, ...], batch: Batch) -> Mapping[str, Tensor]:
    """What parts write at the last position, by site, and the `stream` that the final norm reads there."""
    with model.trace(run=False) as t, t.world("prompt", batch):
        model.layers[-1].output[:, -1].save("stream")
        for site in dict.fromkeys(_writes(unit) for unit in units):
            model.site(site)[:, -1].save(site)
    return next(model.backend.run_many([t.graph], [t.feed]))
