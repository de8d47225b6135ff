"""Queries, keys and values of attention heads, apart."""

from dataclasses import dataclass
from typing import final

from interpose.graph import Site
from interpose.mediators.base import PlaceMediator, Prompts, Unit
from interpose.trace import Model


@final
@dataclass(frozen=True)
class HeadInputs(PlaceMediator):
    """A head's query, key or value, as projected from the stream: `a3.h2<q>`, `a3.h2<k>`, `a3.h2<v>`.

    Where several query heads share a key and a value, those are one unit each, named by their group: `a3.kv1<k>`.
    """

    def places(self, model: Model, prompts: Prompts | None = None) -> tuple[Unit, ...]:  # noqa: ARG002
        """Layer by layer, all queries, then all keys, then all values; see `PlaceMediator.places`."""
        dims = model.sizes()
        shared = "h" if dims.kv_heads == dims.heads else "kv"
        kinds = (("q", "h", dims.heads), ("k", shared, dims.kv_heads), ("v", shared, dims.kv_heads))
        return tuple(
            Unit(f"a{layer}.{called}{head}<{kind}>", Site(f"layers.{layer}.attn.{kind}"), head=head)
            for layer in range(dims.layers)
            for kind, called, count in kinds
            for head in range(count)
        )
