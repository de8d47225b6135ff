"""Automatic circuit discovery: walk from the logits back to the input, and drop every edge whose loss is not felt.

The circuit begins as the whole graph. Each edge is cut, on top of all those that are already dropped, and if the loss
rises by less than the threshold, it stays cut. Destinations are taken from the last to the first, and for each of them
sources from the nearest to the farthest.

    score(edge) = L(circuit so far, less the edge) - L(circuit so far)      L = mean of KL(whole || circuit), or of -b

with b = logit(answer) - logit(wrong). The score is what was measured when the edge was tested, so the circuit that
ACDC finds is exactly the edges whose score is at least the threshold, and they are the first in the ranking. An edge
into a head or MLP from which nothing leads to the logits any more is not tested: cutting it changes nothing, and its
score is 0. Other sizes of circuit, cut from the same ranking, are guesses; ACDC itself would need a run a threshold.

Cost: at least one forward pass an edge that is tested, on each batch of pairs. Edges into one destination are run many
at a time, each with all edges before it cut; what comes after an edge that turns out to stay is run again, so the
result is that of testing one after another. Where runs of one destination are shared, layers before it are run once.

Source: Conmy et al. 2023, https://arxiv.org/abs/2304.14997. `ActivationPatching` cuts each edge alone, with all others
in place, and misses what two edges do for each other; `EAP` guesses that from one gradient.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.mediators.base import Mediator
from interpose.mediators.edges import Edges
from interpose.methods.base import Method
from interpose.models.stream import StreamGraph
from interpose.search.edge_patching import EdgePatching
from interpose.search.objective import KL, Logit
from interpose.search.progress import track
from interpose.tasks.base import Pairs
from interpose.trace import Model

_FEWEST, _MOST = 4, 64
"""How many edges are tried at a time: more after all of them could go, fewer after one had to stay."""


@final
@dataclass(frozen=True)
class ACDC(Method):
    """Automatic circuit discovery: every edge cut in turn, from the logits back, for good where that is not felt.

    Attributes:
        threshold: an edge stays if cutting it makes the loss rise by at least so much.
        loss: `kl` is the divergence from the whole model's next-token distribution, in nats; `logit_difference` is
            logit(wrong) - logit(answer).
        batch_size: pairs in one forward pass.
    """

    threshold: float = 0.01
    loss: str = "kl"
    batch_size: int = 16

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score an edge; see `Method.score`."""
        if not isinstance(mediators, Edges):
            raise self.refuse(mediators, "It tests Edges(); for other units use DCM() or ActivationPatching().")
        if not self.threshold > 0:
            raise SearchError(
                f"ACDC drops edges whose loss rises by less than its threshold, which must be above 0 and is "
                f"{self.threshold}. Write for example ACDC(threshold=0.01)."
            )
        losses = {"kl": KL(), "logit_difference": Logit("answers", "wrong")}
        if self.loss not in losses:
            raise SearchError(f"ACDC has the losses 'kl' and 'logit_difference', and not {self.loss!r}.")
        patching = EdgePatching(model, pairs, mediators, self.batch_size, measure=losses[self.loss])
        scores = torch.zeros(patching.graph.n_edges, dtype=torch.float64)
        tested = _tested(patching, self.threshold)
        for edge, rise in track(tested, len(scores), "testing edges", patching.batches):
            scores[edge] = rise
        return scores.float()


def _tested(patching: EdgePatching, threshold: float) -> Iterator[tuple[int, float]]:
    """Every edge with the rise of the loss when it was cut, in the order in which they are tested."""
    graph = patching.graph
    circuit = torch.ones(graph.n_edges, dtype=torch.bool)
    level = float(next(patching(circuit[None])).double().mean())
    for row in reversed(range(graph.n_destinations)):
        first, upstream = graph.offsets[row], graph.upstream(row)
        waiting, at_once = list(reversed(range(first, first + upstream))), _FEWEST
        if not _leads_on(graph, circuit, row):
            circuit[waiting] = False
            yield from ((edge, 0.0) for edge in waiting)
            continue
        while waiting:
            tried, stayed = waiting[:at_once], False
            for edge, run in zip(tried, patching(_cut_in_turn(circuit, tried)), strict=True):
                now = float(run.double().mean())
                yield edge, now - level
                del waiting[0]
                stayed = not now - level < threshold
                if stayed:
                    break
                circuit[edge], level = False, now
            at_once = max(at_once // 2, _FEWEST) if stayed else min(at_once * 2, _MOST)


def _cut_in_turn(circuit: Bool[Tensor, " edges"], tried: list[int]) -> Bool[Tensor, "circuits edges"]:
    """The circuit less the first edge, less the first two, and so on."""
    masks = circuit.repeat(len(tried), 1)
    for number, edge in enumerate(tried):
        masks[number:, edge] = False
    return masks


def _leads_on(graph: StreamGraph, circuit: Bool[Tensor, " edges"], row: int) -> bool:
    """Whether what a destination feeds has an edge left; all that are left lead to the logits."""
    nodes = graph.inputs[row].nodes
    later = range(row + 1, graph.n_destinations)
    return not nodes or any(
        bool(circuit[graph.offsets[to] + node]) for to in later for node in nodes if node < graph.upstream(to)
    )
