"""Paths run with the corrupt value: what a sender writes otherwise reaches the receivers, and nothing else changes.

What a receiver then reads is its clean stream with a change. Where the path is direct, the change is what the sender
writes otherwise. Where it leads through MLPs, the stock network says it: the change is put into the stream behind the
sender, with every attention block held to what it adds on the clean prompt. In a second run the receivers are set to
what they make of that, and everything behind them runs as it does. One recording of each serves all senders.
"""

from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.graph import Feed, Graph, Site
from interpose.graph.moved import moved
from interpose.mediators.edges import Reader, all_written, projected, put_reading, readers, reading, stream_at
from interpose.mediators.paths import Paths
from interpose.search.behaviour import feed_of, first_difference, logit_difference
from interpose.tasks.base import Pairs
from interpose.trace import Model

_SWEEP = 32
"""How many senders are handed over at once: their changes are as large as the stream, one a receiver."""


def patch_paths(
    model: Model, pairs: Pairs, paths: Paths, *, first: int | None = None, mixture: float = 0.0
) -> Iterator[Float[Tensor, " examples"]]:
    """Run the clean prompts, then the same with each path given what its sender writes on the corrupt prompts, in turn.

    Args:
        model: the model.
        pairs: clean and corrupt prompts with answers; they run in one batch.
        paths: the paths.
        first: the first position where clean and corrupt prompts differ, counted from the last (-1).
        mixture: 1 gives the paths the clean value, 0 the corrupt one, what lies between a mixture of both.

    Yields:
        logit(answer) - logit(wrong) of every pair: first where nothing is patched, then for each path.
    """
    runs = _Runs(model, pairs, paths, first_difference(pairs) if first is None else first)
    yield from runs.all(1.0 - mixture)


@final
class _Runs:
    """The runs of one batch."""

    def __init__(self, model: Model, pairs: Pairs, paths: Paths, first: int) -> None:
        self._model, self._pairs, self._paths, self._first = model, pairs, paths, first
        self._graph, self._ends = paths.graph(model), paths.ends(model)
        self._count = len(paths.senders(model))
        self._readers = [
            reader
            for reader in readers(model, self._graph)
            if any(reader.rows.start <= end < reader.rows.stop for end in self._ends)
        ]

    def all(self, weight: float) -> Iterator[Tensor]:
        """The behaviour without a change, then with each sender's, so many times as large."""
        differences = weight * self._differences()
        graph, feed = self._record_receivers(differences[0][None])
        with self._model.trace(run=False) as t, t.world("clean", self._pairs.clean_batch()):
            logit_difference(self._model, t, self._pairs).save("m")
        yield next(self._model.backend.run_many([t.graph], [t.feed]))["m"]
        for some in torch.arange(self._count).split(_SWEEP):
            feeds = [
                feed.with_(None, change=change, on=self._downstream(sender))
                for sender, change in zip(some.tolist(), self._changes(differences, some.tolist()), strict=True)
            ]
            for run in self._model.backend.run_many([graph] * len(feeds), feeds):
                yield run["m"]

    def _differences(self) -> Float[Tensor, "source n pos width"]:
        """What the sources write on the corrupt prompts less what they write on the clean ones."""
        batches = [self._pairs.corrupt_batch(), self._pairs.clean_batch()]
        with self._model.trace(run=False) as t, t.world("prompt", batches[0]):
            all_written(self._model, self._first).save("written")
        feeds = [t.feed.with_({"prompt": batch}) for batch in batches]
        corrupt, clean = (run["written"] for run in self._model.backend.run_many([t.graph] * 2, feeds))
        return corrupt - clean

    def _downstream(self, sender: int) -> Float[Tensor, " destination"]:
        """1 for each receiver that the sender lies upstream of."""
        on = torch.zeros(self._graph.n_destinations, dtype=self._model.dtype)
        on[[end for end in self._ends if sender < self._graph.upstream(end)]] = 1
        return on

    def _changes(self, differences: Tensor, senders: Sequence[int]) -> Iterator[Float[Tensor, "reader n pos width"]]:
        """How each sender changes the stream where it is read: one change for all readers, or one for each."""
        if not self._paths.through_mlps:
            yield from (differences[sender][None] for sender in senders)
            return
        graph, feed = self._record_streams(differences[0])
        start = Site("embed"), ()
        graphs = [moved(graph, start, (self._written_at(sender), ())) for sender in senders]
        feeds = [feed.with_(None, difference=differences[sender]) for sender in senders]
        for run in self._model.backend.run_many(graphs, feeds):
            yield run["change"]

    def _written_at(self, sender: int) -> Site:
        """The first place in the stream that has what a sender wrote."""
        if sender == 0:
            return Site("embed")
        layer, part = divmod(sender - 1, self._graph.heads + 1)
        behind = "mid" if part < self._graph.heads and not self._graph.parallel else "output"
        return Site(f"layers.{layer}.{behind}")

    def _record_streams(self, like: Tensor) -> tuple[Graph, Feed]:
        """The change of the stream where it is read, when it is changed behind a sender and only MLPs pass that on."""
        model, first, batch = self._model, self._first, self._pairs.clean_batch()
        layers = range(min(self._readers[-1].layer + 1, self._graph.layers))
        with model.trace(run=False) as t:
            difference = t.input("difference", like)
            with t.world("before", batch):
                held = [model.layers[layer].attn.output for layer in layers]
                streams = [stream_at(model, reader)[:, first:] for reader in self._readers]
            with t.world("clean", batch):
                model.embed[:, first:] += difference
                for layer in layers:
                    model.layers[layer].attn.output = held[layer]
                now = [stream_at(model, reader)[:, first:] for reader in self._readers]
                changes: Any = torch.stack([after - was for after, was in zip(now, streams, strict=True)])
                changes.save("change")
        return t.graph, t.feed

    def _record_receivers(self, like: Tensor) -> tuple[Graph, Feed]:
        """The behaviour when the receivers that are on read the clean stream with a change."""
        model, batch = self._model, self._pairs.clean_batch()
        count = len(self._readers) if self._paths.through_mlps else 1
        with model.trace(run=False) as t:
            change = t.input("change", like.expand(count, -1, -1, -1))
            on = t.input("on", self._downstream(0))
            with t.world("before", batch):
                made = [
                    reading(model, self._graph, reader, change[number % count][None], self._first)
                    for number, reader in enumerate(self._readers)
                ]
            with t.world("clean", batch):
                for reader, values in zip(self._readers, made, strict=True):
                    self._set(reader, values, on[reader.rows] > 0)
                logit_difference(model, t, self._pairs).save("m")
        return t.graph, feed_of(t.feed, self._pairs, {})

    def _set(self, reader: Reader, values: Sequence[Any], on: Any) -> None:
        """Set what is a receiver; what else is read there goes on as it is."""
        model, graph, first = self._model, self._graph, self._first
        if reader.kind == "attn":
            parts = on.split([graph.heads, graph.readers, graph.readers])
            own = [row[:, first:] for row in projected(model, reader.layer, graph)]
            chosen = [
                torch.where(part[:, None], value, now) for part, value, now in zip(parts, values, own, strict=True)
            ]
        else:
            site = model.norm.output if reader.kind == "logits" else model.layers[reader.layer].mlp.input
            chosen = [torch.where(on, values[0], site[:, first:])]
        put_reading(model, graph, reader, chosen, first)
