"""Measuring, from finished weights alone, whether a network implements a causal graph in its places.

Values are taken over with the library's own blocks here, while the training takes them over with hooks.
"""

from collections.abc import Collection, Iterator
from random import Random
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpose.loading.cards import Score
from interpose.search.edge_patching import EdgePatching
from interpose.studies._zoo._siit import NONE, Aligned, Change, Prompts, nodes, outside
from interpose.studies._zoo.base import score, task_scores
from interpose.tasks.base import Pairs, Rate, Task
from interpose.trace import Model

_DRAWS = 4


class Asked(NamedTuple):
    """With what a finished model is measured.

    Attributes:
        seed: of the examples.
        n: how many pairs of the task; places are measured with twice as many pairs of prompts.
    """

    seed: int
    n: int


def evaluated(model: Model, task: Task, aligned: Aligned, edges: Collection[str], asked: Asked) -> dict[str, Score]:
    """All that the card of a model says of it: accuracy on its task, what its places carry, and its circuit alone.

    Args:
        model: the model.
        task: its task.
        aligned: the causal model and its places.
        edges: those of its circuit; `truth_alone` is how often they alone prefer the answer.
        asked: the seed and the number of examples.
    """
    pairs = task.pairs(model, n=asked.n, seed=asked.seed, split="test")
    found = {**task_scores(model, task, asked.seed, n=asked.n), **measured(model, aligned, asked.seed, 2 * asked.n)}
    return {**found, "truth_alone": kept(model, pairs, edges)}


def measured(model: Model, aligned: Aligned, seed: int, n: int) -> dict[str, Score]:
    """Whether places carry their variables, and nothing else carries anything.

    Args:
        model: the model.
        aligned: the causal model and its places.
        seed: of the prompts.
        n: how many pairs of prompts.

    Returns:
        `accuracy`, how often the answer is the causal model's; `interchange_NAME` for each variable, how often it still
        is when the variable's place takes over what it wrote on another prompt; `held_NAME`, the same while the places
        of all variables computed from it are held, so that nothing changes unless it works past them; `strict`, how
        often the answer stays when one node outside the graph takes over what it wrote on another prompt, for the node
        for which that is least often; `strict_at_once`, when all such nodes do.
    """
    holds: dict[str, list[Tensor]] = {}
    random = Random(f"measure {seed}")
    for _ in range(_DRAWS):
        for name, rows in _held(model, aligned, aligned.draw(n // _DRAWS, random)):
            holds.setdefault(name, []).append(rows)
    scores = {name: _score(torch.cat(parts)) for name, parts in holds.items()}
    stays = [scores.pop(name) for name in list(scores) if name.startswith("strict ")]
    return {**scores, "strict": min(stays, key=lambda each: each.value)}


def _held(model: Model, aligned: Aligned, prompts: Prompts) -> Iterator[tuple[str, Bool[Tensor, " n"]]]:
    """Each thing that is asked for, and on which prompts it holds."""
    order, free, names = nodes(model), outside(model, aligned), list(aligned.places)
    place = {name: order.index(node) for name, node in aligned.places.items()}
    made = aligned.causal.variables
    changes = {f"interchange_{name}": Change((name,)) for name in names}
    for name in names:
        if held := tuple(other for other in names if name in made[other].parents):
            changes[f"held_{name}"] = Change((name,), held)
    tried = [([], []), (free, []), *(([node], []) for node in free)]
    tried += [([place[name] for name in taken], [place[name] for name in held]) for taken, held in changes.values()]
    clean, at_once, *rest = _answers(model, prompts, tried)
    yield "accuracy", clean == aligned.own(prompts.base_inputs)
    yield "strict_at_once", at_once == clean
    for node, answer in zip(free, rest, strict=False):
        yield f"strict {order[node]}", answer == clean
    for (name, change), answer in zip(changes.items(), rest[len(free) :], strict=True):
        expected = aligned.exchanged(prompts, [change] * len(clean))
        yield name, (answer == expected)[expected != NONE]


def _answers(model: Model, prompts: Prompts, tried: list[tuple[list[int], list[int]]]) -> list[Int[Tensor, " n"]]:
    """The answer to each base prompt, once for each list of nodes that come from its source, and of nodes held."""
    width = model.sizes().heads + 1
    none = torch.zeros(len(nodes(model)), device=model.device, dtype=model.dtype)
    with model.trace(run=False) as t:
        tables = t.input("takes", none), t.input("holds", none)
        written = []
        for world, batch in (("source", prompts.source), ("plain", prompts.base)):
            with t.world(world, batch):
                written.append([(layer.attn.z, layer.mlp.output) for layer in model.layers])
        with t.world("base", prompts.base):
            for number, layer in enumerate(model.layers):
                heads, mlp = layer.attn.z, layer.mlp.output
                for table, values in zip(tables, written, strict=True):
                    node = table[number * width : (number + 1) * width]
                    heads = heads + node[:-1, None] * (values[number][0] - layer.attn.z)
                    mlp = mlp + node[-1] * (values[number][1] - layer.mlp.output)
                layer.attn.z, layer.mlp.output = heads, mlp
            model.logits[:, -1].argmax(-1).save("answer")
    feeds = []
    for takes, holds in tried:
        rows = none.clone(), none.clone()
        rows[0][takes], rows[1][holds] = 1, 1
        feeds.append(t.feed.with_(takes=rows[0], holds=rows[1]))
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
