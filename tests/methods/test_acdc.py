"""ACDC against the algorithm written out by hand, one edge after another, on a forward pass of plain tensors."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import interpose as ip
from interpose.errors import SearchError
from interpose.mediators import Edges, Heads
from interpose.methods import ACDC
from interpose.search.progress import watching
from interpose.search.selection import threshold
from interpose.tasks.base import Pairs

Make = Callable[..., ip.Model]
HEADS, WIDTH = 2, 24


def by_hand(network: Any, ids: Tensor, cut: Collection[str], corrupt: Mapping[str, Tensor]) -> tuple[Tensor, Any]:
    """The logits of a GPT-2 at the last position with some edges cut, and what every source wrote."""
    body = network.transformer
    rest = body.wpe.weight[: ids.shape[1]].expand(len(ids), -1, -1).clone()
    wrote: dict[str, Tensor] = {"input": body.wte(ids)}

    def stream(reader: str) -> Tensor:
        return rest + sum(corrupt[u] if f"{u}->{reader}" in cut else now for u, now in wrote.items())

    for number, layer in enumerate(body.h):
        attn, made = layer.attn, {}
        size, causal = WIDTH // HEADS, torch.ones(ids.shape[1], ids.shape[1]).tril().bool()
        for head in range(HEADS):
            name = f"a{number}.h{head}"
            q, k, v = (
                layer.ln_1(stream(f"{name}<{kind}>")) @ attn.c_attn.weight[:, rows] + attn.c_attn.bias[rows]
                for i, kind in enumerate("qkv")
                for rows in [slice(i * WIDTH + head * size, i * WIDTH + (head + 1) * size)]
            )
            scores = (q @ k.transpose(1, 2) / size**0.5).masked_fill(~causal, float("-inf"))
            made[name] = scores.softmax(-1) @ v @ attn.c_proj.weight[head * size : (head + 1) * size]
        wrote |= made
        rest = rest + attn.c_proj.bias
        wrote[f"m{number}"] = layer.mlp(layer.ln_2(stream(f"m{number}")))
    return network.lm_head(body.ln_f(stream("logits"))[:, -1]), wrote


def loss_of(logits: Tensor, whole: Tensor, pairs: Pairs, kind: str) -> float:
    if kind == "logit_difference":
        rows = torch.arange(len(pairs))
        return float((logits[rows, pairs.wrong] - logits[rows, pairs.answers]).double().mean())
    p, q = whole.double().log_softmax(-1), logits.double().log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def one_after_another(model: ip.Model, pairs: Pairs, at_least: float, kind: str) -> tuple[dict[str, float], set[str]]:
    """Every edge's rise of the loss when it was tested, and the edges that were kept; none is left out."""
    names = list(Edges().units(model))
    with torch.no_grad():
        whole, _ = by_hand(model.network, pairs.clean_tokens, (), {})
        _, corrupt = by_hand(model.network, pairs.corrupt_tokens, (), {})
        cut: set[str] = set()
        level, rises = loss_of(whole, whole, pairs, kind), {}
        for name in reversed(names):
            logits, _ = by_hand(model.network, pairs.clean_tokens, cut | {name}, corrupt)
            now = loss_of(logits, whole, pairs, kind)
            rises[name] = now - level
            if now - level < at_least:
                cut, level = cut | {name}, now
    return rises, set(names) - cut


@pytest.mark.parametrize(("kind", "at_least"), [("kl", 0.003), ("kl", 0.01), ("logit_difference", 0.02)])
def test_it_is_one_after_another(kind: str, at_least: float, make: Make, even: Pairs) -> None:
    model = make("gpt2")
    rises, kept = one_after_another(model, even, at_least, kind)
    # No edge is so near the threshold that rounding could decide.
    assert min(abs(rise - at_least) for rise in rises.values()) > 1e-4
    scores = ACDC(at_least, kind, batch_size=2).score(model, even, Edges())
    assert 0 < len(kept) < len(rises) - 5
    assert scores.values.tolist() == pytest.approx([rises[name] for name in scores.units], abs=2e-5)
    # The ranking gives the circuit back, by its size and by the threshold.
    assert {row.unit for row in scores.top(len(kept))} == kept
    assert {scores.units[int(i)] for i in threshold(scores.values, at_least).nonzero()} == kept


def test_a_lower_threshold_keeps_more(make: Make, even: Pairs) -> None:
    counts = [int((ACDC(at).score(make("gpt2"), even, Edges()).values >= at).sum()) for at in (3e-3, 0.02, 5.0)]
    assert counts[0] > counts[1] > counts[2]


def test_the_edges_of_one_neuron_are_kept(one_neuron: Callable[[str], tuple[ip.Model, Pairs]]) -> None:
    scores = ACDC().score(*one_neuron("relu"), Edges())
    kept = {name for name, score in zip(scores.units, scores.values.tolist(), strict=True) if score >= 0.01}
    assert kept == {"input->m0", "m0->logits", "input->logits"}


def test_every_edge_counts_as_progress(make: Make, even: Pairs) -> None:
    told: list[tuple[str, int, int]] = []
    with watching(lambda *args: told.append(args)):
        ACDC().score(make("gpt2"), even, Edges())
    assert told[-1] == ("testing edges", 46, 46)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


@pytest.mark.parametrize(
    ("method", "units", "said"),
    [
        (
            ACDC(),
            Heads(),
            "ACDC cannot score Heads(). It tests Edges(); for other units use DCM() or ActivationPatching().",
        ),
        (
            ACDC(threshold=0.0),
            Edges(),
            "ACDC drops edges whose loss rises by less than its threshold, which must be above 0 and is 0.0. "
            "Write for example ACDC(threshold=0.01).",
        ),
        (ACDC(loss="ce"), Edges(), "ACDC has the losses 'kl' and 'logit_difference', and not 'ce'."),
    ],
)
def test_what_it_cannot_do_is_refused(method: ACDC, units: Any, said: str, make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        method.score(make("gpt2"), even, units)
    assert str(failure.value) == said
