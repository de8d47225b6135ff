"""What a cut edge carries, or a patched place holds, in place of what the model computes there.

| ablation | in place of what a part gives now |
|---|---|
| `counterfactual` | what it gives on the corrupt prompt, at the same position |
| `zero` | nothing: zeros |
| `mean` | its own mean over all real tokens of all clean prompts: one vector a part |
| `mean-positional` | its own mean at each position, over the clean prompts that reach so far back |

Every part has a mean of its own, and padding takes no part in it. Positions count from the last (-1), so that they mean
the same in prompts of unequal length: far from the end a mean is over the longer prompts only.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.graph import Batch, Site
from interpose.mediators.edges import Edges, cut_edges, table_of
from interpose.models.stream import StreamGraph
from interpose.tasks.base import Pairs
from interpose.trace import Model

ABLATIONS = ("counterfactual", "zero", "mean", "mean-positional")
"""All there are; `counterfactual` is the one that methods take unless told otherwise."""


def check_ablation(ablation: str) -> None:
    """Check that there is an ablation of this name. Raises SearchError, naming all, where there is none."""
    if ablation not in ABLATIONS:
        raise SearchError(f"There is no ablation {ablation!r}. Write one of {', '.join(map(repr, ABLATIONS))}.")


def written_instead(
    model: Model, graph: StreamGraph, pairs: Pairs, ablation: str, batch_size: int
) -> Float[Tensor, "source one position width"] | None:
    """What every source is taken to write, whatever the prompt.

    Args:
        model: the model.
        graph: its stream graph.
        pairs: over whose clean prompts means are taken.
        ablation: one of `ABLATIONS`.
        batch_size: prompts in one forward pass.

    Returns:
        zeros, or a mean for each source; the axis of positions has length 1 where all positions are given the same.
        None for `counterfactual`, which differs from prompt to prompt.

    Raises:
        SearchError: there is no such ablation.
    """
    check_ablation(ablation)
    if ablation == "counterfactual":
        return None
    if ablation == "zero":
        return torch.zeros(graph.n_sources, 1, 1, model.sizes().width, dtype=_precise(model), device=model.device)
    batches = [part.clean_batch() for part in pairs.batches(batch_size)]
    return _means_written(model, graph, batches, ablation == "mean-positional").unsqueeze(1)


@final
class Held:
    """What places hold instead of their own values, for one batch of pairs after the other.

    Args:
        model: the model.
        sites: where the places are.
        pairs: over whose clean prompts means are taken.
        ablation: one of `ABLATIONS`.
        batch_size: prompts in one forward pass.

    Raises:
        SearchError: there is no such ablation, or a site has no mean over tokens.
    """

    def __init__(self, model: Model, sites: Sequence[Site], pairs: Pairs, ablation: str, batch_size: int) -> None:
        """Take the means, where means are asked for."""
        check_ablation(ablation)
        self._model, self._sites, self._ablation = model, sites, ablation
        self._means: dict[str, Tensor] = {}
        if ablation.startswith("mean"):
            axes = {site.name: _axes(site, ablation) for site in sites}
            batches = [part.clean_batch() for part in pairs.batches(batch_size)]
            made = _means(model, batches, lambda: {name: model.site(name) for name in axes}, axes, ablation != "mean")
            for name, mean in made.items():
                kept = [slice(None) if a == "P" and ablation != "mean" or a not in "BP" else None for a in axes[name]]
                self._means[name] = mean[tuple(kept)]

    def __call__(self, part: Pairs) -> dict[str, Tensor]:
        """For each site by name, the whole value that its places are to hold, of the site's own shape."""
        batch = part.corrupt_batch() if self._ablation == "counterfactual" else part.clean_batch()
        with self._model.trace(run=False) as t, t.world("main", batch):
            for site in self._sites:
                self._model.site(site.name).save(site.name)
        found = next(self._model.backend.run_many([t.graph], [t.feed]))
        values = {site.name: found[site.name] for site in self._sites}
        if self._ablation == "zero":
            return {name: torch.zeros_like(value) for name, value in values.items()}
        if self._means:
            return {name: self._means[name].to(value.dtype).expand_as(value) for name, value in values.items()}
        return values


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
    means = _means_written(model, graph, [model.batch(part) for part in parts], positional=False)
    return means[:, 0].to(model.dtype)


def _means_written(model: Model, graph: StreamGraph, batches: Sequence[Batch], positional: bool) -> Tensor:
    """The mean of what each source writes [source, position or 1, width]."""

    def written() -> dict[str, Any]:
        found = {"embed": model.embed}
        for layer in range(graph.layers):
            found[f"heads{layer}"] = model.layers[layer].attn.result
            found[f"mlp{layer}"] = model.layers[layer].mlp.output
        return found

    axes = {"embed": "BPM"} | {f"mlp{layer}": "BPM" for layer in range(graph.layers)}
    means = _means(model, batches, written, axes | {f"heads{i}": "BPHM" for i in range(graph.layers)}, positional)
    means = {name: mean if positional else mean.unsqueeze(0) for name, mean in means.items()}
    parts = [means["embed"].unsqueeze(0)]
    for layer in range(graph.layers):
        parts += [means[f"heads{layer}"].transpose(0, 1), means[f"mlp{layer}"].unsqueeze(0)]
    return torch.cat(parts)


def _means(
    model: Model,
    batches: Sequence[Batch],
    read: Callable[[], Mapping[str, Any]],
    axes: Mapping[str, str],
    positional: bool,
) -> dict[str, Tensor]:
    """Means over real tokens of the values that `read` gives in a block; no value outlives its layer.

    Returns:
        by name, the mean, without the axes B and P, or without B where each position has its own mean.
    """
    masks = [batch.kwargs["attention_mask"].to(model.device, _precise(model)) for batch in batches]
    with model.trace(run=False) as t, t.world("main", batches[0]):
        real = t.input("real", masks[0])
        for name, value in read().items():
            left = axes[name].replace("B", "").replace("P", "P" if positional else "")
            torch.einsum(f"{axes[name]},BP->{left}", value.to(_precise(model)), real).save(name)  # type: ignore[attr-defined]
    feeds = [t.feed.with_({"main": batch}, real=mask) for batch, mask in zip(batches, masks, strict=True)]
    total: dict[str, Tensor] = {}
    for run in model.backend.run_many([t.graph] * len(feeds), feeds):
        total = {name: total.get(name, 0.0) + value.double() for name, value in run.items()}
    tokens = sum(mask.double().sum(0) for mask in masks) if positional else sum(mask.double().sum() for mask in masks)
    return {name: _divided(value, axes[name], tokens).to(_precise(model)) for name, value in total.items()}


def _divided(total: Tensor, axes: str, tokens: Any) -> Tensor:
    """A sum over tokens by their number; where no prompt reaches, nothing is read, and it stays at zero."""
    if tokens.ndim == 0:
        return total / tokens
    behind = len(axes) - 1 - axes.index("P")
    return total / tokens.clamp(min=1).view(-1, *[1] * behind)


def _axes(site: Site, ablation: str) -> str:
    axes = "".join(site.axes or ())
    if "B" not in axes or axes.count("P") != 1:
        raise SearchError(
            f"The {ablation} ablation averages over tokens, but {site.name} has no single axis of tokens. Write "
            "ablation='zero' or 'counterfactual'."
        )
    return axes


def _precise(model: Model) -> torch.dtype:
    """Means of numbers of eight bits must not have eight bits themselves."""
    return torch.promote_types(model.dtype, torch.float32)


def _check(model: Model, graph: StreamGraph) -> None:
    own = Edges(grouped=graph.grouped).graph(model)
    if own != graph:
        raise SearchError(
            f"This circuit is of another model: it has the edges of {graph}, but {model.info.name} has {own}."
        )
