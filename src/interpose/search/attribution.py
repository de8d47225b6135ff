"""Edge attribution: a first-order guess of what cutting each edge does, for all edges at once.

For an edge u -> v the guess is (A_corrupt[u] - A_clean[u]) . dm/dx_v, where x_v is what v reads from the stream, before
any norm. One forward and one backward pass of the stock network give the derivative by every projection's output; the
derivative by the stream that each head reads follows from the head's rows of the weights and the norm's own derivative
(`interpose.search.edge_sums`). What is kept of a pass is, for each layer, a few tensors as large as the stream.
"""

from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.graph import Feed, Graph
from interpose.mediators.edges import Edges, projected, readers, stream_at
from interpose.models.stream import StreamGraph
from interpose.search.ablation import written_instead
from interpose.search.behaviour import feed_of, first_difference, logit_difference
from interpose.search.edge_sums import EdgeSums
from interpose.search.progress import track
from interpose.tasks.base import Pairs
from interpose.trace import Model
from interpose.trace.gradient import grad

_ENDS = {1.0: "clean", 0.0: "corrupt"}

Tensors = dict[str, Tensor]


def attribute_edges(
    model: Model,
    pairs: Pairs,
    edges: Edges,
    mixtures: Sequence[float],
    batch_size: int,
    ablation: str = "counterfactual",
) -> Float[Tensor, " edges"]:
    """Score every edge, the derivative averaged over runs whose embedding lies between corrupt and clean.

    Args:
        model: the model.
        pairs: clean and corrupt prompts with answers.
        edges: how edges are counted.
        mixtures: where derivatives are taken: 1 is the clean embedding, 0 the corrupt one.
        batch_size: pairs in one forward pass.
        ablation: what a cut edge would carry; see `interpose.search.ablation`.

    Returns:
        one score an edge: how much the behaviour falls, to first order, when the edge carries the corrupt value; mean
        over pairs and mixtures.
    """
    graph, parts = edges.graph(model), list(pairs.batches(batch_size))
    instead = written_instead(model, graph, pairs, ablation, batch_size)
    # Zeros and means differ from what is written everywhere, a corrupt prompt from its first other token on.
    first = first_difference(pairs) if instead is None else -pairs.mask.shape[1]
    passes, sums = _Passes(model, graph, first), EdgeSums(model, graph)
    total = torch.zeros(graph.n_edges, dtype=torch.float64)
    steps = ((part, mixture) for part in parts for mixture in mixtures)
    for part, mixture in track(steps, len(parts) * len(mixtures), "attributing edges"):
        slopes = passes.slopes(part, mixture)
        other = passes.written(part, "corrupt") if instead is None else instead
        total -= sums(other, passes.written(part, "clean"), slopes)
        del slopes  # before the next pass
    return (total / (len(pairs) * len(mixtures))).to(torch.float32)


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
        self._written: dict[str, Tensors] = {}

    def written(self, part: Pairs, end: str) -> Tensors:
        """What the sources write on the clean or the corrupt prompts, as `EdgeSums` takes it."""
        self._turn_to(part)
        if end not in self._written:
            self._written[end] = self._run("written", part, end)
        return self._written[end]

    def slopes(self, part: Pairs, mixture: float) -> Tensors:
        """The slope of the behaviour where the stream is read, as `EdgeSums` takes it."""
        self._turn_to(part)
        end = _ENDS.get(mixture)
        if end is None:
            ends = {f"{end}_embed": self.written(part, end)["embed"] for end in _ENDS.values()}
            return self._run("between", part, "clean", **ends, weight=torch.tensor(mixture, dtype=self._model.dtype))
        # The pass is that end's own, so that it also shows what the sources write there.
        found = self._run("end", part, end)
        self._written[end] = {name: found.pop(name) for name in list(found) if name.startswith(("embed", "z", "mlp"))}
        return found

    def _turn_to(self, part: Pairs) -> None:
        if part is not self._part:
            self._part, self._written = part, {}

    def _run(self, kind: str, part: Pairs, end: str, **tensors: Tensor) -> Tensors:
        if kind not in self._blocks:
            self._blocks[kind] = self._record(kind, part, tensors)
        graph, feed = self._blocks[kind]
        worlds = {"prompt": part.clean_batch() if end == "clean" else part.corrupt_batch()}
        return next(self._model.backend.run_many([graph], [feed_of(feed, part, worlds, **tensors)]))

    def _record(self, kind: str, part: Pairs, tensors: Tensors) -> tuple[Graph, Feed]:
        model = self._model
        with model.trace(run=False) as t:
            inputs = {name: t.input(name, torch.empty_like(like, device="meta")) for name, like in tensors.items()}
            with t.world("prompt", part.clean_batch()):
                if kind == "between":
                    corrupt, clean = inputs["corrupt_embed"], inputs["clean_embed"]
                    model.embed[:, self._first :] = corrupt + inputs["weight"] * (clean - corrupt)
                else:
                    self._save_written()
                if kind != "written":
                    made = self._made()
                    number = logit_difference(model, t, part).sum()
                    for name, value in made.items():
                        grad(number, value)[:, self._first :].save(name)
        return t.graph, t.feed

    def _save_written(self) -> None:
        model, first = self._model, self._first
        model.embed[:, first:].save("embed")
        for number in range(self._graph.layers):
            layer = model.layers[number]
            layer.attn.z[:, first:].save(f"z{number}")
            layer.mlp.output[:, first:].save(f"mlp{number}")

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
