"""A model that runs by some of its edges only: every other edge carries nothing, or a mean."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.mediators.edges import Edges, all_written, cut_edges, table_of
from interpose.models.stream import StreamGraph
from interpose.trace import Model


def keep_only(
    model: Model,
    graph: StreamGraph,
    mask: Bool[Tensor, "edges"],
    means: Float[Tensor, "source width"] | None = None,
) -> None:
    """In a block, inside a world: cut every edge outside a set; see `interpose.mediators.edges.cut_edges`.

    Args:
        model: the model whose block is open.
        graph: its stream graph.
        mask: the edges that are kept.
        means: what each source is taken to write where an edge is cut; zeros by default.

    Raises:
        SearchError: the graph is another model's, or the means are of another shape.
    """
    _check(model, graph)
    shape = (graph.n_sources, model.sizes().width)
    if means is not None and tuple(means.shape) != shape:
        raise SearchError(
            f"The means are of shape {list(means.shape)}; expected {list(shape)}, one row a source. Take them from "
            "circuit.mean(model, prompts)."
        )
    carried = torch.zeros(shape) if means is None else means
    carried = carried.to(model.device, model.dtype)[:, None, None]
    cut = table_of(1 - mask.to(model.device, model.dtype), graph)
    cut_edges(model, graph, carried, cut, None)


def mean_written(model: Model, graph: StreamGraph, prompts: Any, batch_size: int) -> Float[Tensor, "source width"]:
    """What every source writes to the stream, averaged over all tokens of some prompts.

    Args:
        model: the model.
        graph: its stream graph.
        prompts: what a block is opened with; a list of texts is run `batch_size` at a time.
        batch_size: prompts in one forward pass.

    Raises:
        SearchError: the graph is another model's.
    """
    _check(model, graph)
    parts = [prompts]
    if isinstance(prompts, Sequence) and not isinstance(prompts, str):
        parts = [prompts[i : i + batch_size] for i in range(0, len(prompts), batch_size)]
    batches = [model.batch(part) for part in parts]
    masks = [batch.kwargs["attention_mask"].to(model.device, model.dtype) for batch in batches]
    with model.trace(run=False) as t, t.world("main", batches[0]):
        real = t.input("real", masks[0])
        total: Any = torch.einsum("sbpm,bp->sm", all_written(model, None), real)
        total.save("total")
    feeds = [t.feed.with_({"main": batch}, real=mask) for batch, mask in zip(batches, masks, strict=True)]
    runs = model.backend.run_many([t.graph] * len(feeds), feeds)
    summed = sum((run["total"].double() for run in runs), torch.zeros((), dtype=torch.float64, device=model.device))
    return (summed / sum(float(mask.sum()) for mask in masks)).to(model.dtype)


def _check(model: Model, graph: StreamGraph) -> None:
    own = Edges(grouped=graph.grouped).graph(model)
    if own != graph:
        raise SearchError(
            f"This circuit is of another model: it has the edges of {graph}, but {model.info.name} has {own}."
        )
