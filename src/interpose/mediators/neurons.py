"""MLP neurons."""

from dataclasses import dataclass
from typing import final

from interpose.graph import Site
from interpose.mediators.base import PlaceMediator, Prompts, Unit
from interpose.trace import Model


@final
@dataclass(frozen=True)
class Neurons(PlaceMediator):
    """One MLP neuron, as the down projection reads it: `m3.n17` is layer 3, neuron 17."""

    def places(self, model: Model, prompts: Prompts | None = None) -> tuple[Unit, ...]:  # noqa: ARG002
        """One unit a neuron, layer by layer; see `PlaceMediator.places`."""
        dims = model.sizes()
        return tuple(
            Unit(f"m{layer}.n{neuron}", Site(f"layers.{layer}.mlp.neurons"), neuron=neuron)
            for layer in range(dims.layers)
            for neuron in range(dims.neurons)
        )
