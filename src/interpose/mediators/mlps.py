"""What each MLP adds to the stream."""

from dataclasses import dataclass
from typing import final

from interpose.graph import Site
from interpose.mediators.base import PlaceMediator, Prompts, Unit
from interpose.trace import Model


@final
@dataclass(frozen=True)
class MLPs(PlaceMediator):
    """A whole MLP's addition to the stream: one unit a layer, `m0` to the last."""

    def places(self, model: Model, prompts: Prompts | None = None) -> tuple[Unit, ...]:  # noqa: ARG002
        """One unit a layer; see `PlaceMediator.places`."""
        layers = range(model.sizes().layers)
        return tuple(Unit(f"m{layer}", Site(f"layers.{layer}.mlp.output")) for layer in layers)
