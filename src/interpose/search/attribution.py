"""Edge attribution: a first-order guess of what cutting each edge does, for all edges at once.

For an edge u -> v the guess is (A_corrupt[u] - A_clean[u]) . dm/dx_v, where x_v is what v reads from the stream, before
any norm. One forward and one backward pass of the stock network give the derivative by every projection's output; the
derivative by the stream that each head reads follows from the head's rows of the weights and the norm's own derivative.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.graph import Feed, Graph
from interpose.mediators.edges import Edges, Reader, all_written, projected, readers, stream_at, weights_of
from interpose.models.stream import StreamGraph
from interpose.search.behaviour import feed_of, first_difference, logit_difference
from interpose.search.progress import track
from interpose.tasks.base import Pairs
from interpose.trace import Model
from interpose.trace.gradient import grad


def attribute_edges(
    model: Model, pairs: Pairs, edges: Edges, mixtures: Sequence[float], batch_size: int
) -> Float[Tensor, " edges"]:
    """Score every edge, the derivative averaged over runs whose embedding lies between corrupt and clean.

    Args:
        model: the model.
        pairs: clean and corrupt prompts with answers.
        edges: how edges are counted.
        mixtures: where derivatives are taken: 1 is the clean embedding, 0 the corrupt one.
        batch_size: pairs in one forward pass.

    Returns:
        one score an edge: how much the behaviour falls, to first order, when the edge carries the corrupt value; mean
        over pairs and mixtures.
    """
    graph, first = edges.graph(model), first_difference(pairs)
    parts = list(pairs.batches(batch_size))
    difference_graph, difference_feed = _record_differences(model, parts[0], first)
    score_graph, score_feed = _record_scores(model, graph, parts[0], first)
    total = torch.zeros(graph.n_edges, dtype=torch.float64)
    steps = ((part, mixture) for part in parts for mixture in mixtures)
    held: dict[int, dict[str, Tensor]] = {}
    for part, mixture in track(steps, len(parts) * len(mixtures), "attributing edges"):
        worlds = {"clean": part.clean_batch(), "corrupt": part.corrupt_batch()}
        if id(part) not in held:
            held = {id(part): next(model.backend.run_many([difference_graph], [difference_feed.with_(worlds)]))}
        weight = torch.tensor(mixture, dtype=model.dtype)
        feed = feed_of(score_feed, part, {"mixed": worlds["clean"]}, weight=weight, **held[id(part)])
        total -= next(model.backend.run_many([score_graph], [feed]))["scores"].double().cpu()
    return (total / (len(pairs) * len(mixtures))).to(torch.float32)


def _record_differences(model: Model, part: Pairs, first: int) -> tuple[Graph, Feed]:
    """What every source writes on the corrupt prompt less what it writes on the clean one; both embeddings."""
    with model.trace(run=False) as t:
        with t.world("clean", part.clean_batch()):
            clean, clean_embed = all_written(model, first), model.embed
        with t.world("corrupt", part.corrupt_batch()):
            corrupt, corrupt_embed = all_written(model, first), model.embed
        (corrupt - clean).save("differences")
        clean_embed.save("clean_embed")
        corrupt_embed.save("corrupt_embed")
    return t.graph, t.feed


def _record_scores(model: Model, graph: StreamGraph, part: Pairs, first: int) -> tuple[Graph, Feed]:
    dims, batch = model.sizes(), part.clean_batch()
    rows, length = part.clean_tokens.shape
    shape = (graph.n_sources, rows, -first, dims.width)
    like = torch.empty(rows, length, dims.width, dtype=model.dtype, device="meta")
    with model.trace(run=False) as t:
        differences = t.input("differences", torch.empty(shape, dtype=model.dtype, device="meta"))
        ends = t.input("corrupt_embed", like), t.input("clean_embed", like)
        weight = t.input("weight", torch.tensor(1.0, dtype=model.dtype))
        with t.world("mixed", batch):
            model.embed = ends[0] + weight * (ends[1] - ends[0])
            read = [(reader, stream_at(model, reader), _made(model, graph, reader)) for reader in readers(model, graph)]
            number = logit_difference(model, t, part).sum()
            scores = []
            for reader, stream, made in read:
                derivative = torch.cat([grad(number, value)[:, first:] for value in made], 2)
                derivative = _through_norm(model, graph, reader, stream[:, first:], derivative)
                scores.append((derivative.flatten(1) @ differences[: reader.upstream].flatten(1).T).flatten())
            joined: Any = torch.cat(scores)
            joined.save("scores")
    return t.graph, t.feed


def _made(model: Model, graph: StreamGraph, reader: Reader) -> tuple[Any, ...]:
    """What a reader makes of the stream, by which the behaviour is differentiated."""
    if reader.kind == "logits":
        return (model.norm.output,)
    layer = model.layers[reader.layer]
    if reader.kind == "mlp":
        return (layer.mlp.input,)
    query, key, value = projected(model, reader.layer, graph)
    if graph.readers != model.sizes().kv_heads:
        layer.attn.k, layer.attn.v = key, value
    return query, key, value


def _through_norm(model: Model, graph: StreamGraph, reader: Reader, stream: Any, derivative: Any) -> Any:
    """From the derivative by what a reader makes to that by the stream it reads [row, batch, position, width]."""
    if reader.kind == "attn":
        pulled = torch.einsum("bpvd,vdm->vbpm", derivative, weights_of(model, reader.layer, graph))
    else:
        pulled = derivative.unsqueeze(0)
    if reader.norm is None:
        return pulled
    # As many as there are rows, and not `expand_as(pulled)`: what rests on a gradient makes it a second derivative.
    copies = stream.detach().unsqueeze(0).expand(pulled.shape[0], -1, -1, -1)
    normed = model.call.module(reader.norm, copies)
    return grad((normed * pulled.detach()).sum(), copies)
