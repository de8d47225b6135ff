"""Uniform gradient sampling: fit the probability with which each edge belongs to the circuit.

At each step every pair draws a circuit of its own. An edge is in it with about its probability; in a narrow window
between in and out it carries a mixture of its clean and its corrupt value, and there its slope is measured
(`UniformWindow` in `search/gates.py`).

    score(edge) = p = sigmoid(t)      minimising  mean of KL(whole || circuit) + sparsity * sum of p + node price

The node price makes heads that few edges touch go as a whole: with n heads, and s the sum of p over the edges that
begin or end at a head, it is nodes * sum over heads of n/2 tanh(2 s / n).

Source: Li and Janson 2024, https://arxiv.org/abs/2409.09951, with the settings of the MIB circuit track,
https://arxiv.org/abs/2504.13151. `EdgePruning` asks the same with one hard-concrete mask a step. `EAP` and its kin need
a few passes in place of hundreds, and look at each edge alone.
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.mediators.base import Mediator
from interpose.mediators.edges import Edges
from interpose.methods.base import Method
from interpose.models.stream import StreamGraph
from interpose.search.gates import UniformWindow
from interpose.search.mask import Masked, fit_mask
from interpose.search.mixing import EdgeMixing, Mix
from interpose.search.objective import KL, PerUnit, Price
from interpose.search.training import Optimiser
from interpose.tasks.base import Pairs
from interpose.trace import Model


@final
@dataclass(frozen=True)
class UGS(Method):
    """Uniform gradient sampling: for each edge the probability of being in the circuit, fitted on drawn circuits.

    Attributes:
        steps: steps of the optimiser, one forward and one backward pass each.
        sparsity: the price of one edge, in nats of KL: what it must be worth to stay.
        nodes: the price of one head, see above; by default half of `sparsity`, and at most 2e-4.
        lr: learning rate of AdamW; by default that of the paper for this sparsity and corrupt values from a
            counterfactual prompt: 0.03 up to a sparsity of 1e-4, 0.02 up to 5e-4, else 0.01.
        pairs_per_step: pairs in one step; each draws its own circuit, and fewer pairs are repeated.
        seed: of the order in which pairs are taken, and of the draws.
    """

    steps: int = 1000
    sparsity: float = 1e-3
    nodes: float | None = None
    lr: float | None = None
    pairs_per_step: int = 16
    seed: int = 0

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score an edge, from 0 to 1; see `Method.score`."""
        if not isinstance(mediators, Edges):
            raise self.refuse(mediators, "It scores Edges(); for other units use DCM() or ActivationPatching().")
        lr = _rate(self.sparsity) if self.lr is None else self.lr
        nodes = min(self.sparsity / 2, 2e-4) if self.nodes is None else self.nodes
        optimiser = Optimiser(lr, self.steps, betas=(0.9, 0.995), decoupled=True, clip=5.0)
        mixing = EdgeMixing(model, pairs, mediators, Mix(), pruned=True)
        masked = Masked(model, pairs, mixing, KL(), self.pairs_per_step)
        price = EdgesAndHeads(mixing.graph, self.sparsity, nodes)
        return fit_mask(masked, UniformWindow(), price, optimiser, self.seed, "drawing circuits")


def _rate(sparsity: float) -> float:
    """The published learning rate for mean ablation, of which counterfactual values take a fifth."""
    if sparsity <= 1e-4:
        return 0.15 / 5
    return (0.1 if sparsity <= 5e-4 else 0.05) / 5


@final
@dataclass(frozen=True)
class EdgesAndHeads(Price):
    """So much an edge, and for each head a price that grows with its edges, steeply only while they are few.

    Attributes:
        graph: whose edges they are.
        edge: the price of an edge.
        head: the price of a head.
    """

    graph: StreamGraph
    edge: float
    head: float

    def __call__(self, sizes: Any) -> Any:
        """The price of all edges, and of the heads they touch."""
        price = PerUnit(self.edge)(sizes)
        if self.head == 0:
            return price
        edges, heads = self._touching()
        count = self.graph.layers * self.graph.heads
        none = torch.zeros_like(sizes[:1]).expand(count)
        touching = none.index_add(0, heads, sizes.index_select(0, edges))
        return price + self.head * (torch.tanh(touching * (2 / count)) * (count / 2)).sum()

    def _touching(self) -> tuple[Tensor, Tensor]:
        """Edges, and a head that each begins or ends at; one that joins two heads stands there twice."""
        graph = self.graph
        number = torch.full((graph.n_sources,), -1)
        heads = [graph.head(layer, head) for layer in range(graph.layers) for head in range(graph.heads)]
        number[heads] = torch.arange(len(heads))
        edges, owners = [], []
        for place, first in zip(graph.inputs, graph.offsets, strict=False):
            here = torch.arange(first, first + place.upstream)
            edges.append(here)
            owners.append(number[: place.upstream])
            for node in place.nodes:
                edges.append(here)
                owners.append(number[node].expand(place.upstream))
        joined, owner = torch.cat(edges), torch.cat(owners)
        return joined[owner >= 0], owner[owner >= 0]
