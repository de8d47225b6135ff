"""Attribution of edges as published: dense tensors of every node, on a tiny GPT-2 with plain hooks.

What a published implementation adds up, with a tensor [pair, position, node, width] for what nodes write and one for
the slopes where they read, written anew for this test. Where it is suspected of a fault, ours differs, as names say.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import interpose as ip
from interpose.mediators import Edges
from interpose.methods import EAP, EAPIG, CleanCorrupted, EAPIGActivations
from interpose.methods.base import Method
from interpose.search.ablation import ABLATIONS
from interpose.tasks.base import Pairs

Make = Callable[..., ip.Model]
LAYERS, HEADS, WIDTH = 2, 2, 24
NONE: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
Held = dict[str, Tensor]


@contextmanager
def recorded(network: Any, instead: Held, seen: dict[str, Any]) -> Iterator[None]:
    """Note every module's input and output; give some modules' outputs other values."""
    handles = []
    for name, module in network.named_modules():

        def after(_: Any, args: Any, output: Any, name: str = name) -> Any:
            whole = output if isinstance(output, tuple) else (output,)
            whole = (instead.get(name, whole[0]), *whole[1:])
            if isinstance(whole[0], Tensor):
                kept = whole[0] if whole[0].requires_grad else whole[0].clone().requires_grad_()
                whole = (kept, *whole[1:])
            seen[name] = (args[0] if args else None, whole[0])
            return whole if isinstance(output, tuple) else whole[0]

        handles.append(module.register_forward_hook(after))
    yield
    for handle in handles:
        handle.remove()


class Dense:
    """Runs of a tiny GPT-2, with what every node writes and the slope where every node reads."""

    def __init__(self, model: ip.Model, pairs: Pairs) -> None:
        self.network: Any = model.network
        self.pairs, self.body = pairs, self.network.transformer
        self.real = pairs.mask[:, :, None].float()

    def run(self, corrupt: bool = False, instead: Held | None = None) -> tuple[dict[str, Any], Tensor]:
        batch = self.pairs.corrupt_batch() if corrupt else self.pairs.clean_batch()
        seen: dict[str, Any] = {}
        with recorded(self.network, instead or {}, seen):
            logits = self.network(**batch.kwargs).logits[:, -1]
        rows = torch.arange(len(self.pairs))
        return seen, (logits[rows, self.pairs.answers] - logits[rows, self.pairs.wrong]).sum()

    def written(self, corrupt: bool = False) -> Tensor:
        """What every node writes [pair, position, node, width]."""
        seen, _ = self.run(corrupt)
        nodes = [seen["transformer.wte"][1]]
        for layer, block in enumerate(self.body.h):
            mixed = seen[f"transformer.h.{layer}.attn.c_proj"][0]
            weight = block.attn.c_proj.weight.view(HEADS, -1, WIDTH)
            nodes += [part @ weight[head] for head, part in enumerate(mixed.chunk(HEADS, -1))]
            nodes.append(seen[f"transformer.h.{layer}.mlp"][1])
        return torch.stack(nodes, 2).detach()

    def slopes(self, corrupt: bool = False, instead: Held | None = None) -> Tensor:
        """The slope of the behaviour where every node reads: queries, keys, values, MLP, layer by layer; the logits."""
        seen, number = self.run(corrupt, instead)
        found = []
        for layer, block in enumerate(self.body.h):
            name = f"transformer.h.{layer}"
            (made,) = torch.autograd.grad(number, seen[f"{name}.attn.c_attn"][1], retain_graph=True, **NONE)
            stream = seen[f"{name}.ln_1"][0]
            for at in range(3 * HEADS):
                rows = slice(at * WIDTH // HEADS, (at + 1) * WIDTH // HEADS)
                found.append(pulled(block.ln_1, stream, made[..., rows] @ block.attn.c_attn.weight[:, rows].T))
            (made,) = torch.autograd.grad(number, seen[f"{name}.ln_2"][1], retain_graph=True, **NONE)
            found.append(pulled(block.ln_2, seen[f"{name}.ln_2"][0], made))
        (made,) = torch.autograd.grad(number, seen["transformer.ln_f"][1], **NONE)
        found.append(pulled(self.body.ln_f, seen["transformer.ln_f"][0], made))
        return torch.stack(found, 2)

    def scores(self, change: Tensor, slopes: list[Tensor]) -> Tensor:
        """One score an edge, destination by destination."""
        table = torch.einsum("bpum,bpvm->vu", change * self.real[:, :, None], sum(slopes[1:], slopes[0]))
        rows = []
        for layer in range(LAYERS):
            before = 1 + layer * (HEADS + 1)
            block = table[layer * (3 * HEADS + 1) :][: 3 * HEADS + 1]
            rows += [block[:-1, :before].flatten(), block[-1, : before + HEADS]]
        return -torch.cat([*rows, table[-1]]) / (len(self.pairs) * len(slopes))


def pulled(norm: Any, stream: Tensor, slope: Tensor) -> Tensor:
    own = stream.detach().requires_grad_()
    return torch.autograd.grad((norm(own) * slope).sum(), own)[0]


def agree(method: Method, model: ip.Model, pairs: Pairs, expected: Tensor) -> None:
    found = method.score(model, pairs, Edges()).values
    assert (found - expected).abs().max() < 2e-5 * max(1.0, float(expected.abs().max()))
    assert expected.abs().median() > 1e-4


@pytest.fixture
def dense(make: Make, pairs: Pairs) -> Dense:
    return Dense(make("gpt2"), pairs)


def test_eap_and_both_ends_and_the_way_of_the_embedding(dense: Dense, make: Make, pairs: Pairs) -> None:
    """As published, for prompts of one length; on unequal ones there is nothing published to compare with."""
    change = dense.written(corrupt=True) - dense.written()
    clean, corrupt = dense.slopes(), dense.slopes(corrupt=True)
    agree(EAP(), make("gpt2"), pairs, dense.scores(change, [clean]))
    agree(CleanCorrupted(), make("gpt2"), pairs, dense.scores(change, [clean, corrupt]))
    ends = [dense.run(side)[0]["transformer.wte"][1].detach() for side in (True, False)]
    way = [ends[0] + k / 3 * (ends[1] - ends[0]) for k in range(3)]
    slopes = [dense.slopes(instead={"transformer.wte": embed}) for embed in way]
    agree(EAPIG(steps=3), make("gpt2"), pairs, dense.scores(change, slopes))


def test_the_way_of_every_parts_output(dense: Dense, make: Make, pairs: Pairs) -> None:
    """Each of the 2L + 1 groups in turn, all edges at each; no slope passes through the group that is held."""
    change = dense.written(corrupt=True) - dense.written()
    parts = [f"transformer.h.{layer}.{part}" for layer in range(LAYERS) for part in ("attn", "mlp")]
    ends = [dense.run(side)[0] for side in (True, False)]
    slopes = []
    for name in ("transformer.wte", *parts):
        corrupt, clean = (end[name][1].detach() for end in ends)
        slopes += [dense.slopes(instead={name: k / 2 * clean + (1 - k / 2) * corrupt}) for k in (1, 2)]
    assert len(slopes) == 2 * (2 * LAYERS + 1)
    agree(EAPIGActivations(steps=2), make("gpt2"), pairs, dense.scores(change, slopes))


@pytest.mark.parametrize("ablation", ABLATIONS[1:])
@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_means_are_each_nodes_own_and_over_all_real_tokens_unlike_those_published(
    ablation: str, dense: Dense, make: Make, pairs: Pairs
) -> None:
    wrote, real = dense.written(), dense.real[:, :, None]
    over = {"zero": (), "mean": (0, 1), "mean-positional": (0,)}[ablation]
    means = (wrote * real).sum(over, True) / real.sum(over, True) if over else torch.zeros_like(wrote)
    agree(EAP(ablation=ablation), make("gpt2"), pairs, dense.scores(means - wrote, [dense.slopes()]))
