"""Information flow: shares of what is read, by distances computed one token at a time, and grown into a circuit."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import interpose as ip
from interpose.errors import SearchError
from interpose.mediators import Edges, Heads
from interpose.methods import InformationFlowRoutes
from interpose.tasks.base import Pairs

Make = Callable[..., ip.Model]
OneNeuron = Callable[[str], tuple[ip.Model, Pairs]]
# Where a layer has its attention and MLP, and the norms they read through, which are given the stream.
NAMES = {
    "gpt2": ("transformer.h", "transformer.wte", "attn.c_proj", "mlp", ("ln_1", "ln_2"), "transformer.ln_f"),
    "neox": (
        "gpt_neox.layers",
        "gpt_neox.embed_in",
        "attention.dense",
        "mlp",
        ("input_layernorm", "post_attention_layernorm"),
        "gpt_neox.final_layer_norm",
    ),
    "llama": (
        "model.layers",
        "model.embed_tokens",
        "self_attn.o_proj",
        "mlp",
        ("input_layernorm", "post_attention_layernorm"),
        "model.norm",
    ),
}


def seen(model: ip.Model, variant: str, pairs: Pairs) -> tuple[list[Tensor], list[Tensor]]:
    """What every source writes, and what every part reads: attention and MLP of each layer, and the logits."""
    network: Any = model.network
    layers, embed, out, mlp, norms, last = NAMES[variant]
    modules = {"embed": network.get_submodule(embed), "last": network.get_submodule(last)}
    for number, layer in enumerate(network.get_submodule(layers)):
        modules |= {f"out{number}": layer.get_submodule(out), f"mlp{number}": layer.get_submodule(mlp)}
        modules |= {f"norm{number}{at}": layer.get_submodule(norm) for at, norm in enumerate(norms)}
    found: dict[str, Any] = {}
    handles = [
        module.register_forward_hook(lambda _, args, output, name=name: found.update({name: (args[0], output)}))
        for name, module in modules.items()
    ]
    with torch.no_grad():
        network(**pairs.clean_batch().kwargs)
    for handle in handles:
        handle.remove()
    wrote, reads = [found["embed"][1]], []
    for number in range(2):
        weight = modules[f"out{number}"].weight if variant == "gpt2" else modules[f"out{number}"].weight.T
        mixed = found[f"out{number}"][0].chunk(2, -1)
        wrote += [part @ rows for part, rows in zip(mixed, weight.chunk(2), strict=True)]
        wrote.append(found[f"mlp{number}"][1])
        reads += [found[f"norm{number}0"][0], found[f"norm{number}1"][0]]
    return wrote, [*reads, found["last"][0]]


@pytest.mark.parametrize("variant", list(NAMES))
@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_a_score_is_a_share_by_l1_distance_over_real_tokens(variant: str, make: Make, pairs: Pairs) -> None:
    model = make(variant)
    scores = InformationFlowRoutes(batch_size=2).score(model, pairs, Edges())
    wrote, reads = seen(model, variant, pairs)
    tokens = [(row, at) for row in range(3) for at in range(6) if pairs.mask[row, at]]
    for place in Edges().graph(model).inputs:
        read = reads[2 * place.layer + (place.kind == "mlp")]
        expected = torch.zeros(place.upstream)
        for token in tokens:
            whole = read[token].abs().sum()
            near = [max(float(whole - (read[token] - wrote[u][token]).abs().sum()), 0) for u in range(place.upstream)]
            expected += torch.tensor(near) / max(sum(near), 1e-30)
        found = [scores[f"{u}->{place.name}"] for u in Edges().graph(model).sources[: place.upstream]]
        assert found == pytest.approx((expected / len(tokens)).tolist(), abs=1e-5)
    assert 0 < scores.values.median() < 1
    assert scores.values.min() >= 0


def test_a_norm_behind_the_block_counts_to_what_heads_write(make: Make, even: Pairs) -> None:
    """In Gemma 3 shares still add up to one, and those of heads are of what comes out of the norm."""
    model = make("gemma3")
    scores = InformationFlowRoutes().score(model, even, Edges())
    with model.trace(even.clean_batch()):
        read = model.layers[0].mid.save()
        wrote = torch.cat([model.embed.unsqueeze(2), model.layers[0].attn.result], 2).save()
    near = (read.abs().sum(-1, True) - (read.unsqueeze(2) - wrote).abs().sum(-1)).clamp(min=0)
    expected = (near / near.sum(-1, True)).mean((0, 1))
    assert [scores[f"{u}->m0"] for u in ("input", "a0.h0", "a0.h1")] == pytest.approx(expected.tolist(), abs=1e-5)


def test_shares_by_hand(one_neuron: OneNeuron) -> None:
    """The clean token is (1, 2) and the neuron writes (0, a^2 / 2) = (0, 2.53125); the logits read (1, 4.53125)."""
    model, pairs = one_neuron("relu2")
    scores = InformationFlowRoutes().score(model, pairs, Edges())
    embed, mlp = 1 + 2, 2.53125
    assert scores["input->m0"] == pytest.approx(1)
    assert scores["a0.h0->m0"] == scores["a0.h0->logits"] == 0
    assert scores["input->logits"] == pytest.approx(embed / (embed + mlp)) == pytest.approx(0.542373, abs=1e-6)
    assert scores["m0->logits"] == pytest.approx(mlp / (embed + mlp))
    # It grows from the logits: along input->logits, then m0->logits, which brings what m0 reads into sight.
    sizes = [scores.circuit(n, greedy=True, pruned=False).mask.nonzero().flatten().tolist() for n in (1, 2, 3)]
    names = scores.units
    assert [[names[edge] for edge in each] for each in sizes] == [
        ["input->logits"],
        ["input->logits", "m0->logits"],
        ["input->m0", "input->logits", "m0->logits"],
    ]


def test_neither_answers_nor_corrupt_prompts_are_looked_at(make: Make, even: Pairs) -> None:
    model = make("llama")
    other = replace(even, answers=even.wrong, wrong=even.answers, corrupt_tokens=even.clean_tokens)
    found = [InformationFlowRoutes().score(model, each, Edges()).values for each in (even, other)]
    assert torch.equal(*found)


def test_only_edges_are_scored(make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        InformationFlowRoutes().score(make("llama"), even, Heads())
    assert str(failure.value) == (
        "InformationFlowRoutes cannot score Heads(). It scores Edges(); for other units use ActivationPatching()."
    )
