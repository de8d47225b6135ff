"""Attention heads."""

from dataclasses import dataclass
from typing import final

from interpose.graph import Site
from interpose.mediators.base import PlaceMediator, Prompts, Unit
from interpose.trace import Model


@final
@dataclass(frozen=True)
class Heads(PlaceMediator):
    """One attention head's mix of values, before the output projection: `a3.h2` is layer 3, head 2."""

    def places(self, model: Model, prompts: Prompts | None = None) -> tuple[Unit, ...]:  # noqa: ARG002
        """One unit a head, layer by layer; see `PlaceMediator.places`."""
        dims = model.sizes()
        return tuple(
            Unit(f"a{layer}.h{head}", Site(f"layers.{layer}.attn.z"), head=head)
            for layer in range(dims.layers)
            for head in range(dims.heads)
        )
