"""Circuits of edges run on a model: every edge outside the circuit carries what it carried on the corrupt prompt.

Or, under another ablation, nothing or a mean; see `interpose.search.ablation`.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.graph import Feed, Graph
from interpose.mediators.edges import Edges, all_written, cut_edges, readers, table_of
from interpose.search.ablation import written_instead
from interpose.search.behaviour import first_difference, last_logits
from interpose.search.objective import BEHAVIOUR, Loss
from interpose.tasks.base import Pairs
from interpose.trace import Model

_BLOCKS = 8
"""At how many layers a recorded block may begin to write."""


class EdgePatching:
    """Runs circuits of edges on some pairs.

    What the sources write on the corrupt prompts is computed once and kept on the device: sources x pairs x (positions
    from the first difference) x width numbers; zeros and means are far fewer. A circuit from which no edge into the
    first layers is missing leaves those layers alone, so that the clean run serves them.

    Args:
        model: the model.
        pairs: clean and corrupt prompts with answers.
        edges: how edges are counted.
        batch_size: pairs in one forward pass.
        ablation: what a cut edge carries: `counterfactual`, `zero`, `mean` or `mean-positional`.
        measure: what is measured of every pair; by default logit(answer) - logit(wrong).

    Attributes:
        graph: the stream graph whose edges the circuits are of.

    Raises:
        SearchError: there is no such ablation.
    """

    def __init__(
        self,
        model: Model,
        pairs: Pairs,
        edges: Edges | None = None,
        batch_size: int = 32,
        ablation: str = "counterfactual",
        measure: Loss = BEHAVIOUR,
    ) -> None:
        """Run the corrupt prompts once, or those whose mean is taken."""
        self.model, self.graph = model, (edges or Edges()).graph(model)
        self._parts = list(pairs.batches(batch_size))
        instead = written_instead(model, self.graph, pairs, ablation, batch_size)
        # Means and zeros differ from what is written at every position; a corrupt prompt only from some position on.
        self._first = first_difference(pairs) if instead is None else None
        if instead is None:
            self._corrupt = list(self._written_on_corrupt())
        else:
            self._corrupt = [instead.to(model.dtype)] * len(self._parts)
        self._measure, given = measure, measure.given(model, pairs, batch_size)
        self._given = [
            {name: value[start : start + batch_size] for name, value in given.items()}
            for start in range(0, len(pairs), batch_size)
        ]
        self._blocks: dict[int, tuple[Graph, Feed]] = {}
        found = list(readers(model, self.graph))
        upstream = torch.tensor([place.upstream for place in self.graph.inputs])
        layers = torch.tensor([reader.layer for reader in found for _ in range(*reader.rows.indices(len(upstream)))])
        self._layers = layers.repeat_interleave(upstream)

    def __call__(self, masks: Bool[Tensor, "circuits edges"]) -> Iterator[Float[Tensor, " examples"]]:
        """Run circuits.

        Args:
            masks: for each circuit, which edges are kept.

        Yields:
            for each circuit, what is measured of every pair.

        Raises:
            SearchError: the masks are not of this graph's edges.
        """
        if masks.shape[-1] != self.graph.n_edges:
            raise SearchError(f"A circuit here is a mask of {self.graph.n_edges:,} edges, not of {masks.shape[-1]:,}.")
        blocks = [self.block(mask)[0] for mask in masks for _ in self._parts]
        runs = self.model.backend.run_many(blocks, _Feeds(self, masks))
        for _ in masks:
            yield torch.cat([next(runs)["m"] for _ in self._parts])

    def _written_on_corrupt(self) -> Iterator[Tensor]:
        part = self._parts[0]
        with self.model.trace(run=False) as t, t.world("corrupt", part.corrupt_batch()):
            all_written(self.model, self._first).save("written")
        feeds = [t.feed.with_({"corrupt": part.corrupt_batch()}) for part in self._parts]
        for run in self.model.backend.run_many([t.graph] * len(feeds), feeds):
            yield run["written"]

    def block(self, mask: Bool[Tensor, " edges"]) -> tuple[Graph, Feed]:
        """The recorded block for a circuit, and what it was recorded with; a few serve all circuits."""
        missing = self._layers[~mask.cpu()]
        first, every = int(missing.min()) if len(missing) else self.graph.layers, -(-self.graph.layers // _BLOCKS)
        start = first - first % every
        if start not in self._blocks:
            self._blocks[start] = self._record(start)
        return self._blocks[start]

    def _record(self, start: int) -> tuple[Graph, Feed]:
        part = self._parts[0]
        like = table_of(torch.zeros(self.graph.n_edges, dtype=self.model.dtype), self.graph)
        with self.model.trace(run=False) as t:
            cut, corrupt = t.input("cut", like), t.input("corrupt", self._corrupt[0])
            given = {name: t.input(name, like) for name, like in self._given[0].items()}
            with t.world("clean", part.clean_batch()):
                cut_edges(self.model, self.graph, corrupt, cut, self._first, start)
                logits = last_logits(self.model).to(torch.promote_types(self.model.dtype, torch.float32))
                self._measure(logits, given).save("m")
        return t.graph, t.feed

    def feed(self, mask: Bool[Tensor, " edges"], part: int) -> Feed:
        """What one circuit on one batch of pairs is run with."""
        cut = table_of(1 - mask.to(self.model.dtype), self.graph)
        pairs = self._parts[part]
        worlds = {"clean": pairs.clean_batch()}
        return self.block(mask)[1].with_(worlds, cut=cut, corrupt=self._corrupt[part], **self._given[part])

    @property
    def batches(self) -> int:
        """How many forward passes one circuit takes."""
        return len(self._parts)


class _Feeds(Sequence[Feed]):
    """The feeds of many circuits, made one at a time: a sweep of thousands holds one table of edges."""

    def __init__(self, patching: EdgePatching, masks: Tensor) -> None:
        self._patching, self._masks = patching, masks

    def __len__(self) -> int:
        return len(self._masks) * self._patching.batches

    def __getitem__(self, index: int) -> Feed:  # type: ignore[override]
        if index >= len(self):
            raise IndexError(index)
        circuit, part = divmod(index, self._patching.batches)
        return self._patching.feed(self._masks[circuit], part)
