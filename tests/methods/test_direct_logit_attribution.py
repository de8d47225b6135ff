"""Direct contributions against the stock network's own parts, multiplied out by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import interpose as ip
from interpose.errors import SearchError
from interpose.mediators import AttentionBlocks, Edges, Heads, MLPs, Neurons, Nodes, Positions, Streams
from interpose.methods import ActivationPatching, DirectLogitAttribution
from interpose.search.behaviour import behaviour
from interpose.tasks.base import Pairs

Make = Callable[[str], ip.Model]
HEADS, WIDTH = 2, 12
NAMES = {
    "gpt2": ("transformer.wte", "transformer.h", "attn.c_proj", "transformer.ln_f"),
    "neox": ("gpt_neox.embed_in", "gpt_neox.layers", "attention.dense", "gpt_neox.final_layer_norm"),
    "llama": ("model.embed_tokens", "model.layers", "self_attn.o_proj", "model.norm"),
}


def by_hand(variant: str, network: Any, pairs: Pairs, batch: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Each node's contribution, a pair; and what no node writes: biases and position embeddings."""
    embed, layers, out, final = NAMES[variant]
    seen: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(embed).register_forward_hook(lambda _, __, output: seen.update(input=output[:, -1])),
        network.get_submodule(final).register_forward_pre_hook(lambda _, args: seen.update(final=args[0][:, -1])),
    ]
    for layer in range(2):
        mix, mlp = (network.get_submodule(f"{layers}.{layer}.{path}") for path in (out, "mlp"))

        def kept(name: str) -> Any:
            return lambda _, args, *output: seen.update({name: output[0][:, -1] if output else args[0][:, -1]})

        handles += [mix.register_forward_pre_hook(kept(f"z{layer}")), mlp.register_forward_hook(kept(f"m{layer}"))]
    with torch.no_grad():
        network(**batch.kwargs)
    for handle in handles:
        handle.remove()
    norm, words, stream = network.get_submodule(final), network.get_output_embeddings().weight, seen["final"]
    side = words[pairs.answers] - words[pairs.wrong]
    eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    spread = (
        stream.var(-1, unbiased=False, keepdim=True) if variant != "llama" else stream.pow(2).mean(-1, keepdim=True)
    )

    def read(wrote: Tensor) -> Tensor:
        centred = wrote if variant == "llama" else wrote - wrote.mean(-1, keepdim=True)
        return (centred * norm.weight / (spread + eps).sqrt() * side).sum(-1)

    found, rest = {"input": read(seen["input"])}, torch.zeros(len(pairs))
    for layer in range(2):
        mix = network.get_submodule(f"{layers}.{layer}.{out}")
        weight = mix.weight if variant == "gpt2" else mix.weight.T
        for head in range(HEADS):
            part = slice(head * WIDTH, (head + 1) * WIDTH)
            found[f"a{layer}.h{head}"] = read(seen[f"z{layer}"][:, part] @ weight[part])
        found[f"m{layer}"] = read(seen[f"m{layer}"])
        rest = rest if mix.bias is None else rest + read(mix.bias.expand(len(pairs), -1))
    if variant == "gpt2":
        rest = rest + read(network.transformer.wpe(batch.kwargs["position_ids"][:, -1]))
    return found, rest if variant == "llama" else rest + side @ norm.bias


@pytest.mark.parametrize("variant", list(NAMES))
def test_scores_are_the_contributions_and_add_up_to_the_behaviour(variant: str, make: Make, pairs: Pairs) -> None:
    model = make(variant)
    scores = DirectLogitAttribution(batch_size=2).score(model, pairs, Nodes())
    found, rest = by_hand(variant, model.network, pairs, pairs.clean_batch())
    assert list(scores.units) == list(found)
    assert scores.values.tolist() == pytest.approx([float(value.mean()) for value in found.values()], abs=1e-5)
    whole = float(behaviour(model, pairs)["clean"].mean())
    assert float(scores.values.sum() + rest.mean()) == pytest.approx(whole, abs=1e-5)
    assert scores.values.abs().max() > 0.05
    assert (abs(float(rest.mean())) > 1e-3) == (variant != "llama")


def test_a_norm_behind_the_blocks_is_read_through_too(make: Make, pairs: Pairs) -> None:
    model = make("gemma3")
    whole = float(behaviour(model, pairs)["clean"].mean())
    assert float(DirectLogitAttribution().score(model, pairs, Nodes()).values.sum()) == pytest.approx(whole, abs=1e-5)


def test_the_contrast_is_between_the_prompts(make: Make, pairs: Pairs) -> None:
    model = make("gpt2")
    scores = DirectLogitAttribution(contrast=True).score(model, pairs, Nodes())
    clean, _ = by_hand("gpt2", model.network, pairs, pairs.clean_batch())
    corrupt, _ = by_hand("gpt2", model.network, pairs, pairs.corrupt_batch())
    assert scores.values.tolist() == pytest.approx([float((clean[u] - corrupt[u]).mean()) for u in clean], abs=1e-5)


def test_whole_blocks_contribute_what_their_heads_do(make: Make, even: Pairs) -> None:
    model, method = make("llama"), DirectLogitAttribution()
    blocks, heads, nodes = (method.score(model, even, units) for units in (AttentionBlocks(), Heads(), Nodes()))
    assert blocks.values.tolist() == pytest.approx(heads.values.unflatten(0, (2, 2)).sum(1).tolist(), abs=1e-5)
    assert method.score(model, even, MLPs()).values.tolist() == pytest.approx([nodes["m0"], nodes["m1"]], abs=1e-6)


def test_only_the_direct_way_counts(one_neuron: Any, neuron: Any) -> None:
    model, pairs = one_neuron("relu")
    clean, corrupt, direct = neuron
    found = DirectLogitAttribution().score(model, pairs, Nodes())
    assert (found["input"], found["m0"]) == (pytest.approx(4.0), pytest.approx(clean))
    contrast = DirectLogitAttribution(contrast=True).score(model, pairs, Nodes())
    assert (contrast["input"], contrast["m0"]) == (pytest.approx(direct), pytest.approx(clean - corrupt))
    assert ActivationPatching().score(model, pairs, Nodes())["input"] == pytest.approx(direct + clean - corrupt)


def tiny(family: str, **config: Any) -> tuple[ip.Model, Pairs]:
    torch.manual_seed(1)
    special = {"vocab": 20, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    model = ip.build(family, layers=1, neurons=16, **special, **config)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(6)
    ids, mask = torch.tensor([[3, 4, 5], [6, 7, 8]]), torch.ones(2, 3, dtype=torch.bool)
    return model, Pairs(("a", "b"), ("c", "d"), ids, ids + 3, mask, torch.tensor([1, 2]), torch.tensor([3, 4]))


def test_where_logits_are_capped_the_behaviour_before_the_cap_is_explained() -> None:
    sizes: dict[str, Any] = {"heads": 2, "kv_heads": 1, "width": 12, "head_width": 6}
    model, pairs = tiny("gemma2", **sizes, final_logit_softcapping=0.5)
    with model.trace(pairs.clean_batch()):
        normed, capped = model.norm.output[:, -1].save(), model.logits[:, -1].save()
    words, rows = model.network.get_output_embeddings().weight.detach(), torch.arange(2)
    before = ((words[pairs.answers] - words[pairs.wrong]) * normed).sum(-1).mean()
    after = (capped[rows, pairs.answers] - capped[rows, pairs.wrong]).mean()
    total = DirectLogitAttribution().score(model, pairs, Nodes()).values.sum()
    assert float(total) == pytest.approx(float(before), rel=1e-4)
    assert float(total) != pytest.approx(float(after), rel=0.05)


@pytest.mark.parametrize("width", [5, 6])
def test_a_stream_of_any_width_is_centred(width: int) -> None:
    model, pairs = tiny("gpt2", heads=1, width=width, positions=8)
    network: Any = model.network
    with torch.no_grad():  # nothing but the nodes writes
        network.transformer.wpe.weight.zero_()
        network.transformer.h[0].attn.c_proj.bias.zero_()
        network.transformer.ln_f.weight += torch.randn(width)
    total = float(DirectLogitAttribution().score(model, pairs, Nodes()).values.sum())
    assert total == pytest.approx(float(behaviour(model, pairs)["clean"].mean()), abs=1e-4)


@pytest.mark.parametrize("units", [Streams(), Neurons(), Positions(of=Heads(), last=1), Edges()], ids=repr)
def test_what_does_not_write_to_the_stream_by_itself_is_refused(units: Any, make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        DirectLogitAttribution().score(make("gpt2"), even, units)
    assert str(failure.value) == (
        f"DirectLogitAttribution cannot score {units!r}. It scores what writes to the stream, at all positions: "
        "Nodes(), Heads(), MLPs(), AttentionBlocks(); for other units use ActivationPatching()."
    )


def test_norms_that_are_not_linear_once_their_denominator_is_fixed_are_refused() -> None:
    model, pairs = tiny("gpt2", heads=1, width=6, positions=8)
    model.network.get_submodule("transformer").ln_f = torch.nn.Tanh()
    with pytest.raises(SearchError, match="neither a LayerNorm nor an RMSNorm: with its denominator fixed"):
        DirectLogitAttribution().score(ip.wrap(model.network), pairs, Nodes())
    model, pairs = tiny("bert", heads=2, width=12)
    with pytest.raises(SearchError, match=r"post-norm\), so the logits are no sum of what parts write"):
        DirectLogitAttribution().score(model, pairs, MLPs())
