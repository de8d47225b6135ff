"""Every edge cut by itself, in turn."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpose.mediators.edges import Edges
from interpose.search.edge_patching import EdgePatching
from interpose.search.progress import track
from interpose.tasks.base import Pairs
from interpose.trace import Model

_SWEEP = 64
"""How many circuits are handed over at once: their masks are as long as the model has edges."""


class Cut(NamedTuple):
    """The behaviour, mean over pairs.

    Attributes:
        whole: with no edge cut.
        without: for each edge, with that one cut.
    """

    whole: Float[Tensor, ""]
    without: Float[Tensor, " edges"]


def cut_each(model: Model, pairs: Pairs, edges: Edges, batch_size: int, ablation: str = "counterfactual") -> Cut:
    """Cut each edge alone: its reader receives over it what the ablation says.

    Args:
        model: the model.
        pairs: clean and corrupt prompts with answers.
        edges: how edges are counted.
        batch_size: pairs in one forward pass.
        ablation: what a cut edge carries, one of `interpose.search.ablation.ABLATIONS`.
    """
    patching = EdgePatching(model, pairs, edges, batch_size, ablation)
    count = patching.graph.n_edges
    whole = next(patching(torch.ones(1, count, dtype=torch.bool))).double().mean()
    runs = (run for some in torch.arange(count).split(_SWEEP) for run in patching(_all_but_one(some, count)))
    found = [run.double().mean() for run in track(runs, count, "cutting edges", patching.batches)]
    return Cut(whole, torch.stack(found))


def _all_but_one(edges: Int[Tensor, " circuits"], count: int) -> Bool[Tensor, "circuits edges"]:
    """For each edge, the circuit of all others."""
    return torch.arange(count) != edges[:, None]
