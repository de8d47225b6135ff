"""What each attention block adds to the stream."""

from dataclasses import dataclass
from typing import final

from interpose.graph import Site
from interpose.mediators.base import PlaceMediator, Prompts, Unit
from interpose.trace import Model


@final
@dataclass(frozen=True)
class AttentionBlocks(PlaceMediator):
    """A whole attention block's addition to the stream: one unit a layer, `a0` to the last."""

    def places(self, model: Model, prompts: Prompts | None = None) -> tuple[Unit, ...]:  # noqa: ARG002
        """One unit a layer; see `PlaceMediator.places`."""
        layers = range(model.sizes().layers)
        return tuple(Unit(f"a{layer}", Site(f"layers.{layer}.attn.output")) for layer in layers)
