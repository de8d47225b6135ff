"""A faithfulness curve as a plain loop, everything anew for every size, for `speed.py` to compare the library with.

For each circuit one block with three worlds: the corrupt prompts, whose sources are all kept at all positions; the
clean prompts; and the clean prompts with every edge outside the circuit carrying what it carried on the corrupt ones.
"""

from typing import Any

import torch
from torch import Tensor

import interpose as ip
from interpose.mediators.edges import all_written, cut_edges, table_of
from interpose.search.behaviour import behaviour
from interpose.search.edge_patching import EdgePatching


def one_by_one(model: ip.Model, pairs: ip.Pairs, edges: ip.mediators.Edges, masks: Tensor) -> Tensor:
    """The faithfulness of circuits, each by a run of its own.

    Args:
        model: the model.
        pairs: the prompts, run as one batch.
        edges: how edges are counted.
        masks: which edges each circuit keeps [circuit, edge].

    Returns:
        one number a circuit: (m(circuit) - m(corrupt)) / (m(clean) - m(corrupt)), each m a mean over the pairs.
    """
    graph = edges.graph(model)
    found = []
    for mask in masks:
        cut = table_of(1 - mask.to(model.device, model.dtype), graph)
        with model.trace() as t:
            with t.world("corrupt", pairs.corrupt_batch()):
                written = all_written(model, None)
                corrupt = _difference(model, pairs).save("corrupt")
            with t.world("clean", pairs.clean_batch()):
                clean = _difference(model, pairs).save("clean")
            with t.world("circuit", pairs.clean_batch()):
                cut_edges(model, graph, written, cut, None)
                circuit = _difference(model, pairs).save("circuit")
        found.append(_faithfulness(circuit, clean, corrupt))
    return torch.stack(found)


def together(model: ip.Model, pairs: ip.Pairs, edges: ip.mediators.Edges, masks: Tensor) -> Tensor:
    """The same as methods and `interpose locate` do it: all circuits handed over at once."""
    ends = behaviour(model, pairs, len(pairs))
    circuits = EdgePatching(model, pairs, edges, len(pairs))(masks)
    return torch.stack([_faithfulness(circuit, ends["clean"], ends["corrupt"]) for circuit in circuits])


def _difference(model: ip.Model, pairs: ip.Pairs) -> Any:
    """In a world: logit(answer) - logit(wrong) of each pair; only the last position is unembedded."""
    last = model.call.unembed(model.norm.output[:, -1])
    answers, wrong = (ids.to(model.device)[:, None] for ids in (pairs.answers, pairs.wrong))
    return (last.gather(1, answers) - last.gather(1, wrong))[:, 0]


def _faithfulness(circuit: Tensor, clean: Tensor, corrupt: Tensor) -> Tensor:
    low, high = corrupt.double().mean(), clean.double().mean()
    return (circuit.double().mean() - low) / (high - low)
