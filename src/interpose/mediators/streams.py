"""The residual stream after each layer."""

from dataclasses import dataclass
from typing import final

from interpose.graph import Site
from interpose.mediators.base import PlaceMediator, Prompts, Unit
from interpose.trace import Model


@final
@dataclass(frozen=True)
class Streams(PlaceMediator):
    """The whole residual stream after a layer: one unit a layer, `s0` to the last."""

    def places(self, model: Model, prompts: Prompts | None = None) -> tuple[Unit, ...]:  # noqa: ARG002
        """One unit a layer; see `PlaceMediator.places`."""
        layers = range(model.sizes().layers)
        return tuple(Unit(f"s{layer}", Site(f"layers.{layer}.output")) for layer in layers)
