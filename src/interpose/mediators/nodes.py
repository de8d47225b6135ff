"""Nodes: whatever writes to the residual stream."""

from dataclasses import dataclass
from typing import final

from interpose.graph import Site
from interpose.mediators.base import PlaceMediator, Prompts, Unit
from interpose.trace import Model


@final
@dataclass(frozen=True)
class Nodes(PlaceMediator):
    """One unit for everything that writes to the stream: `input` (the embedding), each head `a3.h2`, each MLP `m3`.

    They are the nodes that edges run between, in the order of `StreamGraph.nodes`, without `logits`.
    """

    def places(self, model: Model, prompts: Prompts | None = None) -> tuple[Unit, ...]:  # noqa: ARG002
        """The embedding, then layer by layer its heads and its MLP; see `PlaceMediator.places`."""
        dims = model.sizes()
        units = [Unit("input", Site("embed"))]
        for layer in range(dims.layers):
            z = Site(f"layers.{layer}.attn.z")
            units += [Unit(f"a{layer}.h{head}", z, head=head) for head in range(dims.heads)]
            units.append(Unit(f"m{layer}", Site(f"layers.{layer}.mlp.output")))
        return tuple(units)
