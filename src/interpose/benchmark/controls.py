"""Random circuits of the same sizes: what a found circuit must beat before it says anything.

A control takes the masks of a ranking's circuits, before pruning, and gives masks with the same number of edges each.
One draw is one random ranking, so that its circuits are nested as those of a method are.
"""

import hashlib
from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Tensor

from interpose.models.stream import StreamGraph

Control = Callable[[Tensor, StreamGraph, int], Tensor]


def uniform(masks: Bool[Tensor, "sizes edges"], graph: StreamGraph, seed: int) -> Bool[Tensor, "sizes edges"]:
    """As many edges, drawn from all edges alike.

    Args:
        masks: the circuits, before pruning; only their sizes matter.
        graph: whose edges they are.
        seed: of this draw.
    """
    rank = torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(seed))
    return rank < masks.sum(-1, keepdim=True)


def shuffled(masks: Bool[Tensor, "sizes edges"], graph: StreamGraph, seed: int) -> Bool[Tensor, "sizes edges"]:
    """As many edges into each kind of destination (q, k, v, mlp, logits) of each layer, but others.

    This is what shuffling the scores within those groups does. The masks are shuffled and not the scores, so that ties
    cannot move an edge from one group to another.

    Args:
        masks: the circuits, before pruning.
        graph: whose edges they are.
        seed: of this draw; all masks are shuffled in the same way.
    """
    generator = torch.Generator().manual_seed(seed)
    order = [group.start + torch.randperm(group.stop - group.start, generator=generator) for group in graph.groups]
    return masks[:, torch.cat(order)]


CONTROLS: dict[str, Control] = {"uniform": uniform, "shuffled": shuffled}


def draw_seed(seed: int, purpose: str, draw: int) -> int:
    """A seed for one draw that does not depend on how many draws there are, nor on other purposes."""
    digest = hashlib.sha256(f"{seed} {purpose} {draw}".encode()).digest()
    return int.from_bytes(digest[:7])
