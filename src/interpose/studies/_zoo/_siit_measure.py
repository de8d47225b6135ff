"""Measuring, from finished weights alone, whether a network implements a causal graph in its places.

Values are taken over with the library's own blocks here, while the training takes them over with hooks.
"""

from collections.abc import Collection
from random import Random
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpose.loading.cards import Score
from interpose.search.edge_patching import EdgePatching
from interpose.studies._zoo._siit import NONE, Aligned, Prompts, nodes, outside
from interpose.studies._zoo.base import score
from interpose.tasks.base import Pairs, Rate
from interpose.trace import Model


def measured(model: Model, aligned: Aligned, seed: int, n: int = 512) -> dict[str, Score]:
    """Whether places carry their variables, and nothing else carries anything.

    Args:
        model: the model.
        aligned: the causal model and its places.
        seed: of the prompts.
        n: how many pairs of prompts.

    Returns:
        `accuracy`, how often the answer is the causal model's; `interchange_NAME` for each variable, how often it still
        is when the variable's place takes over what it wrote on another prompt; `strict`, how often the answer stays
        when one node outside the graph does, for the node for which that is least often; `strict_at_once`, when all
        such nodes do.
    """
    prompts = aligned.draw(n, Random(f"measure {seed}"))
    order, free = nodes(model), outside(model, aligned)
    taken = [[], *([order.index(place)] for place in aligned.places.values()), *([node] for node in free), free]
    answers = _answers(model, prompts, taken)
    clean, own = answers[0], aligned.own(prompts.base_inputs)
    found = {"accuracy": _score(clean == own)}
    for answer, name in zip(answers[1:], aligned.places, strict=False):
        expected = aligned.exchanged(prompts, [[name]] * n)
        found[f"interchange_{name}"] = _score((answer == expected)[expected != NONE])
    stays = [_score(answer == clean) for answer in answers[1 + len(aligned.places) :]]
    found["strict"] = min(stays[:-1], key=lambda each: each.value)
    found["strict_at_once"] = stays[-1]
    return found


def _answers(model: Model, prompts: Prompts, taken: list[list[int]]) -> list[Int[Tensor, " n"]]:
    """The answer to each base prompt, once for each list of nodes that take over what they write on its source."""
    n, width = len(prompts.base_inputs), model.sizes().heads + 1
    table = torch.zeros(n, len(nodes(model)), device=model.device, dtype=model.dtype)
    with model.trace(run=False) as t:
        swap = t.input("swap", table)
        with t.world("source", prompts.source):
            written = [(layer.attn.z, layer.mlp.output) for layer in model.layers]
        with t.world("base", prompts.base):
            for number, (layer, (heads, mlp)) in enumerate(zip(model.layers, written, strict=True)):
                node = swap[:, number * width : (number + 1) * width]
                layer.attn.z = layer.attn.z + node[:, None, :-1, None] * (heads - layer.attn.z)
                layer.mlp.output = layer.mlp.output + node[:, None, -1:] * (mlp - layer.mlp.output)
            model.logits[:, -1].argmax(-1).save("answer")
    feeds = []
    for numbers in taken:
        swapped = table.clone()
        swapped[:, numbers] = 1
        feeds.append(t.feed.with_(swap=swapped))
    return [found["answer"].cpu() for found in model.backend.run_many([t.graph] * len(feeds), feeds)]


def _score(holds: Bool[Tensor, " n"]) -> Score:
    return score(Rate(int(holds.sum()), len(holds)))


def kept(model: Model, pairs: Pairs, edges: Collection[str]) -> Score:
    """How often the answer is still preferred to the wrong one when every other edge carries the corrupt value.

    Args:
        model: the model.
        pairs: the pairs.
        edges: the edges that are kept.
    """
    return _score(differences(model, pairs, [edges])[0] > 0)


def differences(model: Model, pairs: Pairs, circuits: list[Any]) -> Float[Tensor, "circuit n"]:
    """logit(answer) - logit(wrong) with only some edges kept.

    Args:
        model: the model.
        pairs: the pairs.
        circuits: for each circuit the names of the edges that are kept.
    """
    patching = EdgePatching(model, pairs, batch_size=64)
    masks = torch.zeros(len(circuits), patching.graph.n_edges, dtype=torch.bool)
    for mask, edges in zip(masks, circuits, strict=True):
        mask[[patching.graph.edges.number(edge) for edge in edges]] = True
    return torch.stack([found.cpu() for found in patching(masks)])
