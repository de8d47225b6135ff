"""Training a network to implement a known causal graph in known places (strict interchange intervention training).

Every variable of the causal graph has a place, one head or one MLP. Three things are asked of the network at each step,
on prompts in two versions that align token by token, a base and a source:

    behaviour     its answer is the causal model's answer;
    interchange   if what a variable's place writes comes from the source, its answer is what the causal model answers
                  when that variable comes from the source; also while other variables, and their places, are held at
                  what they are on the base, so that a variable works through those computed from it only;
    strictness    if what places outside the graph write comes from the source, its answer does not change.

    loss = behaviour + interchange + 0.4 * strictness, each a cross entropy on the answer

So a place carries its variable, all of it, and nothing outside the places carries anything. What a place writes is
taken over at all positions at once. In the first steps every place outside the graph writes what it wrote on the
source, and no behaviour is asked for: else the network finds another way first, and keeps it for long.

Source: Gupta et al. 2024 (https://arxiv.org/abs/2407.14494), with their weights of the three parts; interchange
training is Geiger et al. 2022 (https://arxiv.org/abs/2112.00826). They change one place outside the graph at a time,
here it is any number; holding variables and the first steps are ours.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from interpose.graph import Batch
from interpose.studies._zoo.base import Training
from interpose.tasks.base import CausalModel
from interpose.trace import Model

NONE = -100
"""In place of a token, where there is no answer; torch leaves such rows out of a cross entropy."""
_STRICT = 0.4
_WARM = 100
_ALONE = 0.4
"""The share of the steps in which the graph's places are trained alone."""

Inputs = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Prompts:
    """Prompts in two versions that align token by token, with the causal model's inputs of each.

    Attributes:
        base: the prompts that are run.
        source: those that values are taken from.
        base_inputs: the causal model's inputs of each base prompt.
        source_inputs: of each source prompt.
    """

    base: Batch
    source: Batch
    base_inputs: Inputs
    source_inputs: Inputs


class Change(NamedTuple):
    """What is done to the variables of one prompt.

    Attributes:
        taken: variables that come from the source prompt.
        held: variables that keep the value they have on the base prompt, whatever they are computed from.
    """

    taken: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


@dataclass(frozen=True)
class Aligned:
    """A causal model, where in a network its variables are, and prompts to try it on.

    Attributes:
        causal: the causal model.
        places: by variable, the node that carries it: `a0.h1` or `m1`.
        token: the token id of an answer.
        draw: so many prompts.
    """

    causal: CausalModel
    places: Mapping[str, str]
    token: Callable[[Any], int]
    draw: Callable[[int, Random], Prompts]

    def own(self, inputs: Inputs) -> Int[Tensor, " n"]:
        """The token of what the causal model answers on each of some inputs."""
        return torch.tensor([self.token(self.causal.run(each)[self.causal.output]) for each in inputs])

    def exchanged(self, prompts: Prompts, changes: Sequence[Change]) -> Int[Tensor, " n"]:
        """The token of what it answers on each base prompt, when some variables are changed.

        Args:
            prompts: the prompts.
            changes: for each prompt, which variables come from the source and which are held.

        Returns:
            the tokens; `NONE` where the causal model has no answer, since variables of two prompts do not fit together.
        """
        found = []
        for base, source, change in zip(prompts.base_inputs, prompts.source_inputs, changes, strict=True):
            given = {**dict.fromkeys(change.held, base), **dict.fromkeys(change.taken, source)}
            answer = self.causal.run_interchange(base, given)[self.causal.output]
            found.append(NONE if answer is None else self.token(answer))
        return torch.tensor(found)


def config(layers: int, positions: int, vocab: int) -> dict[str, Any]:
    """The settings of a small GPT-2 without dropout, whose first three words are padding, unknown and the start.

    Args:
        layers: how many.
        positions: the longest prompt.
        vocab: how many words.
    """
    return {
        "layers": layers,
        "heads": 4,
        "width": 64,
        "neurons": 64,
        "positions": positions,
        "vocab": vocab,
        "initializer_range": 0.1,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 0,
    }


def nodes(model: Model) -> list[str]:
    """The heads and MLPs of a model, in the order in which they write: a0.h0, ..., m0, a1.h0, ..."""
    sizes = model.sizes()
    return [name for i in range(sizes.layers) for name in (*(f"a{i}.h{h}" for h in range(sizes.heads)), f"m{i}")]


def outside(model: Model, aligned: Aligned) -> list[int]:
    """The numbers of the nodes that carry no variable."""
    return [number for number, name in enumerate(nodes(model)) if name not in aligned.places.values()]


def training(model: Model, aligned: Aligned, steps: int, rows: int = 64, rate: float = 3e-3) -> Training:
    """How a network is trained to implement a causal model in its places.

    Args:
        model: with its first weights.
        aligned: the causal model and its places.
        steps: how many there will be.
        rows: pairs of prompts at each step; half of them are for interchange, half for strictness, all for behaviour.
        rate: the highest learning rate; it rises over the first steps and then falls along a cosine.
    """
    optimiser = torch.optim.AdamW(model.network.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        random = Random(int(torch.randint(2**62, (), generator=generator)))
        return siit_loss(model, aligned, aligned.draw(rows, random), random, alone=step < _ALONE * steps)

    def share(step: int) -> float:
        return min(1.0, (step + 1) / _WARM) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))

    return Training(optimiser, loss, share, clip=1.0)


def siit_loss(
    model: Model, aligned: Aligned, prompts: Prompts, random: Random, alone: bool = False
) -> Float[Tensor, ""]:
    """The three losses, weighted, on some prompts; which nodes are taken over is drawn.

    Args:
        model: the model.
        aligned: the causal model and its places.
        prompts: of which the first half are for interchange, the second for strictness.
        random: decides which nodes of each prompt come from its source.
        alone: every node outside the graph always does, and nothing is asked of the whole network.
    """
    rows = len(prompts.base_inputs)
    half, device = rows // 2, model.device
    takes, holds, changes = drawn(model, aligned, rows, random, alone)
    clean, own = run(model, prompts.base)
    _, source = run(model, prompts.source)
    logits, _ = run(model, prompts.base, ((takes.to(device), source), (holds.to(device), own)))
    behaviour = cross_entropy(clean, aligned.own(prompts.base_inputs).to(device))
    each = cross_entropy(logits, aligned.exchanged(prompts, changes).to(device), reduction="none")
    if alone:
        return each[:half].mean() + each[half:].mean()
    return behaviour + each[:half].mean() + _STRICT * each[half:].mean()


def drawn(
    model: Model, aligned: Aligned, rows: int, random: Random, alone: bool
) -> tuple[Float[Tensor, "row node"], Float[Tensor, "row node"], list[Change]]:
    """What is changed in each row: in the first half variables, in the second half nodes outside the graph only.

    Args:
        model: the model.
        aligned: the causal model and its places.
        rows: how many.
        random: decides.
        alone: every node outside the graph comes from the source.

    Returns:
        1 for each node that comes from the source, 1 for each that is held, and what that is for the causal model.
    """
    order, free, changes = nodes(model), outside(model, aligned), []
    takes, holds = torch.zeros(rows, len(order)), torch.zeros(rows, len(order))
    for row in range(rows):
        strict = row >= rows // 2
        changes.append(Change() if strict else _change(list(aligned.places), random))
        share = 1.0 if alone else random.choice((1.0, random.random()) if strict else (0.0, 1.0, random.random()))
        nodes_taken = [number for number in free if random.random() < share]
        if strict and not nodes_taken:
            nodes_taken = [random.choice(free)]
        takes[row, nodes_taken + [order.index(aligned.places[name]) for name in changes[-1].taken]] = 1
        holds[row, [order.index(aligned.places[name]) for name in changes[-1].held]] = 1
    return takes, holds, changes


def _change(variables: list[str], random: Random) -> Change:
    """One variable or more from the source, and in half of all cases some of the others held."""
    shuffled = random.sample(variables, len(variables))
    taken = 1 if random.random() < 0.8 else random.randint(1, len(variables))
    held = random.randint(0, len(variables) - taken) if random.random() < 0.5 else 0
    return Change(tuple(shuffled[:taken]), tuple(shuffled[taken : taken + held]))


def run(
    model: Model, batch: Batch, changes: Sequence[tuple[Float[Tensor, "n node"], Sequence[Tensor]]] = ()
) -> tuple[Float[Tensor, "n vocab"], list[Tensor]]:
    """Run the network, with derivatives, some of its heads and MLPs writing what they wrote on other prompts.

    Args:
        model: the model.
        batch: the prompts.
        changes: for each source of other values, 1 where a node's value comes from there and 0 elsewhere, and the
            second value of another call of this function.

    Returns:
        the logits at the last position, and for each layer what its heads mixed, side by side, and what its MLP wrote.
    """
    sizes, written = model.sizes(), []
    width = sizes.heads + 1

    def at(value: Tensor) -> Tensor:
        """Called at the heads of layer 0, its MLP, the heads of layer 1, ..."""
        layer, mlp = divmod(len(written), 2)
        made, last = value, layer * width + width - 1
        for takes, source in changes:
            taken = takes[:, last:][:, :1] if mlp else takes[:, last - sizes.heads : last]
            each = taken if mlp else taken.repeat_interleave(sizes.head_width, 1)
            value = value + each[:, None] * (source[len(written)] - made)
        written.append(value)
        return value

    with _hooks(model, at):
        inputs = {name: given.to(model.device) for name, given in batch.kwargs.items() if isinstance(given, Tensor)}
        logits = model.network(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1]
    return logits, written


@contextmanager
def _hooks(model: Model, at: Callable[[Tensor], Tensor]) -> Iterator[None]:
    table, handles = model.table(), []
    for layer in range(model.sizes().layers):
        out = model.network.get_submodule(table.path("out", layer) or "")
        mlp = model.network.get_submodule(table.path("mlp", layer) or "")
        handles.append(out.register_forward_pre_hook(lambda _, args: (at(args[0]), *args[1:])))
        handles.append(mlp.register_forward_hook(lambda *given: at(given[-1])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
