"""Paths: what one part writes, on its direct way to some readers.

A sender is a part that writes to the residual stream. On a path, its corrupt value reaches the receivers only,
while every other head keeps what it writes on the clean prompt (Wang et al. 2022, https://arxiv.org/abs/2211.00593).
"""

from dataclasses import dataclass
from typing import ClassVar, final

from interpose.errors import SearchError
from interpose.mediators.base import Mediator, Prompts, names_of
from interpose.mediators.edges import Edges
from interpose.models.stream import StreamGraph
from interpose.trace import Model


@final
@dataclass(frozen=True)
class Paths(Mediator):
    """One unit a sender: the path from what it writes to the receivers, as `a0.h1->logits`.

    Senders are `input`, every head and every MLP upstream of a receiver. A direct path to one receiver is an edge.

    Attributes:
        receivers: who reads at the end of the path, as edges call them: `a3.h2<q>`, `m5`, `logits`.
        through_mlps: MLPs on the way pass on what changes; by default they too keep their clean values.
        grouped: call keys and values by the key/value head that query heads share: `a3.kv1<k>`.
    """

    receivers: tuple[str, ...] = ("logits",)
    through_mlps: bool = False
    grouped: bool = False

    method: ClassVar[str | None] = "PathPatching()"

    def graph(self, model: Model) -> StreamGraph:
        """Who writes and who reads.

        Raises:
            SearchError: this model has no edges; see `Edges.graph`.
        """
        fixed = model.table().fixed("attn.k", model.sizes())
        if fixed and not self.grouped:
            raise SearchError(
                f"This family {fixed}, so query heads that share a key are one receiver. Write "
                "Paths(receivers=..., grouped=True), with names such as 'a0.kv0<k>'."
            )
        return Edges(grouped=self.grouped).graph(model)

    def ends(self, model: Model) -> tuple[int, ...]:
        """The receivers' numbers among the destinations of the graph, in order.

        Raises:
            SearchError: no receiver is named, or one is named twice.
            SiteError: the model has no such receiver; the message names the nearest.
        """
        graph = self.graph(model)
        found = sorted(graph.destination_number(name) for name in names_of(self.receivers, "receivers"))
        if not found or len(set(found)) < len(found):
            raise SearchError(
                f"{self!r} names {'a receiver twice' if found else 'no receiver'}. Name each that the path leads to "
                "once, such as Paths(receivers=('a1.h0<q>', 'logits'))."
            )
        return tuple(found)

    def senders(self, model: Model) -> tuple[str, ...]:
        """The parts that write upstream of any receiver, in the order of the graph."""
        graph = self.graph(model)
        return graph.sources[: max(graph.upstream(end) for end in self.ends(model))]

    def units(self, model: Model, prompts: Prompts | None = None) -> tuple[str, ...]:  # noqa: ARG002
        """One unit a sender; see `Mediator.units`."""
        graph = self.graph(model)
        ends = "+".join(graph.destinations[end] for end in self.ends(model))
        return tuple(f"{sender}->{ends}" for sender in self.senders(model))
