"""How much of what is read from the stream each writer accounts for, by distance: no gradients, no answers."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.graph import Feed, Graph
from interpose.mediators.edges import Edges, readers, stream_at
from interpose.models.stream import StreamGraph
from interpose.search.edge_sums import blocks_of, rows_at_once
from interpose.search.progress import track
from interpose.search.sources import Sources
from interpose.tasks.base import Pairs
from interpose.trace import Model


def information_flow(model: Model, pairs: Pairs, edges: Edges, batch_size: int) -> Float[Tensor, " edges"]:
    """The share that each source has in what its destination reads, on the clean prompts.

    Args:
        model: the model.
        pairs: clean prompts; corrupt ones and answers are not looked at.
        edges: how edges are counted.
        batch_size: prompts in one forward pass.

    Returns:
        one share an edge, mean over all real tokens. The shares of a destination's edges add up to 1, or to less where
        at some token no source is near.
    """
    graph, sources = edges.graph(model), Sources(model, edges.graph(model))
    parts, found = list(pairs.batches(batch_size)), list(readers(model, graph))
    with model.trace(run=False) as t, t.world("clean", parts[0].clean_batch()):
        sources.save(-pairs.mask.shape[1])
        for number, reader in enumerate(found):
            stream_at(model, reader).save(f"read{number}")
    feeds = [t.feed.with_({"clean": part.clean_batch()}) for part in parts]
    runs = model.backend.run_many([t.graph] * len(feeds), feeds)
    total: list[Any] = [0.0] * len(found)
    recorded: tuple[Graph, Feed] | None = None
    for part, run in track(zip(parts, runs, strict=True), len(parts), "following information"):
        given = {**run, "real": part.mask.to(model.device, sources.dtype)}
        cuts = list(blocks_of(len(part), part.mask.shape[1], rows_at_once(graph, run["embed"])))
        recorded = recorded or _record(model, graph, {name: value[cuts[0]] for name, value in given.items()})
        block, feed = recorded
        pieces = [feed.with_(None, **{name: value[cut] for name, value in given.items()}) for cut in cuts]
        for shares in model.backend.run_many([block] * len(pieces), pieces):
            total = [old + shares[f"share{number}"].double().cpu() for number, old in enumerate(total)]
    rows = [share.repeat(len(range(*reader.rows.indices(graph.n_destinations)))) for share, reader in
            zip(total, found, strict=True)]  # fmt: skip
    return (torch.cat(rows) / float(pairs.mask.sum())).float()


def _record(model: Model, graph: StreamGraph, given: dict[str, Tensor]) -> tuple[Graph, Feed]:
    sources = Sources(model, graph)
    with model.trace(run=False) as t:
        inputs = {name: t.input(name, torch.empty_like(value, device="meta")) for name, value in given.items()}
        wrote: Any = torch.cat([block.flatten(1, 2) for block in sources.written(inputs)])
        real = inputs["real"].flatten()
        for number, reader in enumerate(readers(model, graph)):
            read = inputs[f"read{number}"].to(sources.dtype).flatten(0, 1)
            away = (read - wrote[: reader.upstream]).abs().sum(-1)
            near = (read.abs().sum(-1) - away).clamp(min=0)
            share: Any = near / near.sum(0).clamp(min=torch.finfo(sources.dtype).tiny)
            (share * real).sum(1).save(f"share{number}")
    return t.graph, t.feed
