"""Edge attribution: a first-order guess of what cutting each edge does, for all edges at once.

For an edge u -> v the guess is (A_corrupt[u] - A_clean[u]) . dm/dx_v, where x_v is what v reads from the stream, before
any norm. One forward and one backward pass of the stock network give the derivative by every projection's output; the
derivative by the stream that each head reads follows from the head's rows of the weights and the norm's own derivative
(`interpose.search.edge_sums`). What is kept of a pass is, for each layer, a few tensors as large as the stream.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.graph import Feed, Graph, Site
from interpose.graph.moved import moved
from interpose.mediators.edges import Edges, projected, readers, stream_at
from interpose.models.stream import StreamGraph
from interpose.search.ablation import written_instead
from interpose.search.behaviour import feed_of, first_difference, logit_difference
from interpose.search.edge_sums import EdgeSums
from interpose.search.progress import track
from interpose.search.sources import Sources
from interpose.tasks.base import Pairs
from interpose.trace import Model
from interpose.trace.gradient import grad

_ENDS = {1.0: "clean", 0.0: "corrupt"}

Tensors = dict[str, Tensor]


class Point(NamedTuple):
    """Where a slope is taken: the clean run, with the value at one site between its corrupt and its clean one.

    The value is held there: the slope does not pass through it.

    Attributes:
        mixture: 1 for the clean value, 0 for the corrupt one.
        site: `embed`, or `attn.output` or `mlp.output` of a layer.
    """

    mixture: float
    site: str = "embed"


def attribute_edges(
    model: Model,
    pairs: Pairs,
    edges: Edges,
    points: Sequence["float | Point"],
    batch_size: int,
    ablation: str = "counterfactual",
) -> Float[Tensor, " edges"]:
    """Score every edge, the derivative averaged over runs that lie between corrupt and clean.

    Args:
        model: the model.
        pairs: clean and corrupt prompts with answers.
        edges: how edges are counted.
        points: where derivatives are taken; a number says so of the embedding, 1 for the clean one, 0 for the corrupt.
        batch_size: pairs in one forward pass.
        ablation: what a cut edge would carry; see `interpose.search.ablation`.

    Returns:
        one score an edge: how much the behaviour falls, to first order, when the edge carries the corrupt value; mean
        over pairs and points.
    """
    graph, parts = edges.graph(model), list(pairs.batches(batch_size))
    instead = written_instead(model, graph, pairs, ablation, batch_size)
    # Zeros and means differ from what is written everywhere, a corrupt prompt from its first other token on.
    first = first_difference(pairs) if instead is None else -pairs.mask.shape[1]
    passes, sums = _Passes(model, graph, first), EdgeSums(model, graph)
    taken = [point if isinstance(point, Point) else Point(point) for point in points]
    total = torch.zeros(graph.n_edges, dtype=torch.float64)
    steps = ((part, point) for part in parts for point in taken)
    for part, point in track(steps, len(parts) * len(taken), "attributing edges"):
        slopes = passes.slopes(part, point)
        other = passes.written(part, "corrupt") if instead is None else instead
        total -= sums(other, passes.written(part, "clean"), slopes)
        del slopes  # before the next pass
    return (total / (len(pairs) * len(taken))).to(torch.float32)


@final
class _Passes:
    """Runs of the stock network on some pairs, each made once and only when it is asked for.

    Args:
        model: the model.
        graph: its stream graph.
        first: the first position that matters, counted from the last.
    """

    def __init__(self, model: Model, graph: StreamGraph, first: int) -> None:
        self._model, self._graph, self._first = model, graph, first
        self._blocks: dict[str, tuple[Graph, Feed]] = {}
        self._part: Pairs | None = None
        self._sources = Sources(model, graph)
        self._written: dict[str, Tensors] = {}
        self._attention: dict[str, Tensors] = {}
        self._mixed: tuple[str, Graph, Feed] | None = None

    def written(self, part: Pairs, end: str) -> Tensors:
        """What the sources write on the clean or the corrupt prompts, as `EdgeSums` takes it."""
        self._turn_to(part)
        if end not in self._written:
            self._written[end] = self._run("written", part, end)
        return self._written[end]

    def slopes(self, part: Pairs, point: Point) -> Tensors:
        """The slope of the behaviour where the stream is read, as `EdgeSums` takes it."""
        self._turn_to(part)
        end = _ENDS.get(point.mixture) if point.site == "embed" else None
        if end is None:
            ends = {end: self._value(part, end, point.site) for end in _ENDS.values()}
            return self._run(point.site, part, "clean", **ends, weight=torch.tensor(point.mixture))
        # The pass is that end's own, so that it also shows what the sources write there.
        found = self._run("end", part, end)
        self._written[end] = {name: found.pop(name) for name in list(found) if name.startswith(("embed", "z", "mlp"))}
        return found

    def _value(self, part: Pairs, end: str, site: str) -> Tensor:
        """What one end's run has at a site."""
        if site.endswith("attn.output"):
            if end not in self._attention:
                self._attention[end] = self._run("attention", part, end)
            return self._attention[end][site]
        layer = site.removeprefix("layers.").removesuffix(".mlp.output")
        return self.written(part, end)["embed" if site == "embed" else f"mlp{layer}"]

    def _turn_to(self, part: Pairs) -> None:
        if part is not self._part:
            self._part, self._written, self._attention = part, {}, {}

    def _run(self, kind: str, part: Pairs, end: str, **tensors: Tensor) -> Tensors:
        graph, feed = self._block(kind, part, tensors)
        worlds = {"prompt": part.clean_batch() if end == "clean" else part.corrupt_batch()}
        return next(self._model.backend.run_many([graph], [feed_of(feed, part, worlds, **tensors)]))

    def _block(self, kind: str, part: Pairs, tensors: Tensors) -> tuple[Graph, Feed]:
        if kind in self._blocks:
            return self._blocks[kind]
        if kind in ("written", "end", "attention"):
            self._blocks[kind] = self._record(kind, part, tensors)
            return self._blocks[kind]
        # One block serves all sites that are held: recording it for each would take longer than the runs of few pairs.
        if self._mixed is None:
            self._mixed = kind, *self._record(kind, part, tensors)
        site, graph, feed = self._mixed
        self._blocks[kind] = moved(graph, (Site(site), ()), (Site(kind), ())), feed
        return self._blocks[kind]

    def _record(self, kind: str, part: Pairs, tensors: Tensors) -> tuple[Graph, Feed]:
        model = self._model
        with model.trace(run=False) as t:
            inputs = {name: t.input(name, torch.empty_like(like, device="meta")) for name, like in tensors.items()}
            with t.world("prompt", part.clean_batch()):
                if kind in ("end", "written"):
                    self._sources.save(self._first)
                elif kind == "attention":
                    for site in [f"layers.{layer}.attn.output" for layer in range(self._graph.layers)]:
                        model.site(site)[:, self._first :].save(site)
                else:
                    corrupt, clean, weight = inputs["corrupt"], inputs["clean"], inputs["weight"]
                    model.site(kind)[:, self._first :] = corrupt + weight.to(corrupt.dtype) * (clean - corrupt)
                if kind not in ("written", "attention"):
                    made = self._made()
                    number = logit_difference(model, t, part).sum()
                    for name, value in made.items():
                        grad(number, value)[:, self._first :].save(name)
        return t.graph, t.feed

    def _made(self) -> dict[str, Any]:
        """Save the streams that are read; what the readers make of them, by which the behaviour is differentiated."""
        model, made = self._model, dict[str, Any]()
        for reader in readers(model, self._graph):
            layer = reader.layer
            if reader.kind != "mlp" or not self._graph.parallel:
                stream = stream_at(model, reader)[:, self._first :]
                stream.save(f"{'mid' if reader.kind == 'mlp' else 'stream'}{layer}")
            if reader.kind == "logits":
                made["logits"] = model.norm.output
            elif reader.kind == "mlp":
                made[f"in{layer}"] = model.layers[layer].mlp.input
            else:
                attn, rows = model.layers[layer].attn, projected(model, layer, self._graph)
                made |= {f"{kind}{layer}": value for kind, value in zip("qkv", rows, strict=True)}
                if self._graph.readers != model.sizes().kv_heads:
                    attn.k, attn.v = rows[1:]
        return made
