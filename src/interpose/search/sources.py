"""What the sources of the stream write, kept small: what heads mix before the output projection, and multiplied out."""

from collections.abc import Iterator, Mapping
from typing import Any, final

import torch

from interpose.models.stream import StreamGraph
from interpose.trace import Model


@final
class Sources:
    """Saves what sources write in one block, and lays it out by source in another.

    Attributes:
        dtype: what is computed in: sums of numbers of eight bits must not have eight bits themselves.
    """

    def __init__(self, model: Model, graph: StreamGraph) -> None:
        """Nothing is recorded here."""
        self._model, self._graph = model, graph
        self.dtype = torch.promote_types(model.dtype, torch.float32)

    def save(self, first: int) -> None:
        """In a block, inside a world: save `embed` and, for each layer, `z0` and `mlp0`, from position `first` on."""
        model = self._model
        model.embed[:, first:].save("embed")
        for number in range(self._graph.layers):
            layer = model.layers[number]
            layer.attn.z[:, first:].save(f"z{number}")
            layer.mlp.output[:, first:].save(f"mlp{number}")

    def written(self, given: Mapping[str, Any], prefix: str = "") -> Iterator[Any]:
        """What sources write, from what `save` saved [source, pair, position, width], in blocks, in order."""
        yield given[f"{prefix}embed"].to(self.dtype).unsqueeze(0)
        for layer in range(self._graph.layers):
            z = given[f"{prefix}z{layer}"]
            yield (
                self._heads(layer, z.to(self.dtype))
                if self._model.table().attn_post is None
                else self._normed(layer, z)
            )
            yield given[f"{prefix}mlp{layer}"].to(self.dtype).unsqueeze(0)

    def differences(self, given: Mapping[str, Any]) -> Iterator[Any]:
        """What sources write otherwise than on the clean prompts: see `EdgeSums` for what is given."""
        if "fixed" in given:
            fixed, start = given["fixed"].to(self.dtype), 0
            for block in self.written(given, "clean."):
                stop = start + block.shape[0]
                yield fixed[start:stop] - block
                start = stop
        elif self._model.table().attn_post is None:  # then heads are linear, and multiplied out once
            names = {name.removeprefix("clean.") for name in given if name.startswith("clean.")}
            changed = {name: given[f"corrupt.{name}"].to(self.dtype) - given[f"clean.{name}"].to(self.dtype)
                       for name in names}  # fmt: skip
            yield from self.written(changed)
        else:
            for other, own in zip(self.written(given, "corrupt."), self.written(given, "clean."), strict=True):
                yield other - own

    def _heads(self, layer: int, z: Any) -> Any:
        return torch.einsum("bphd,hdm->hbpm", z, self._model.projection(layer, "out").to(self.dtype))

    def _normed(self, layer: int, z: Any) -> Any:
        """What heads write through the norm behind the block, which multiplies by its gain over its denominator."""
        model, table = self._model, self._model.table()
        before = model.call.module(table.path("out", layer) or "", z.flatten(2))
        after = model.call.module(table.path("attn_post", layer) or "", before)
        scale = torch.where(before == 0, torch.zeros_like(after), after / torch.where(before == 0, 1.0, before))
        return self._heads(layer, z.to(self.dtype)) * scale.to(self.dtype)
