"""Cross-model activation patching: two saved models, with hooks that carry values from one network to the other."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import interpose as ip
from interpose.errors import LoadError, SearchError
from interpose.mediators import Edges, MLPs, Nodes, Positions, Streams, TokenRoles
from interpose.methods import CMAP, ActivationPatching
from interpose.tasks.base import Pairs
from interpose.trace.info import ModelInfo

Make = Callable[[str], ip.Model]
LAYERS = {"gpt2": "transformer.h", "neox": "gpt_neox.layers", "llama": "model.layers"}
ROLES = {"x": torch.tensor([-3, -1, -2])}


@pytest.fixture
def saved(make: Make, tmp_path: Path) -> Callable[[str], tuple[ip.Model, ip.Model, str]]:
    """A model, one that was trained further (its weights moved), and the folder of that one."""

    def two(variant: str) -> tuple[ip.Model, ip.Model, str]:
        model, folder = make(variant), tmp_path / variant
        network: Any = model.network
        network.save_pretrained(folder)
        other: Any = ip.load(folder)
        generator = torch.Generator().manual_seed(2)
        for weight in other.network.parameters():
            weight += 0.3 * weight.abs().mean() * torch.randn(weight.shape, generator=generator)
        other.network.save_pretrained(folder)
        return model, other, str(folder)

    return two


def improvement(model: ip.Model, other: ip.Model, pairs: Pairs, path: str, index: Any) -> float:
    """The mean rise of the behaviour when the output of one module, at an index, is the other network's."""
    rows, seen = torch.arange(len(pairs)), list[Tensor]()

    def run(network: Any, hook: Any) -> Tensor:
        handle = network.get_submodule(path).register_forward_hook(hook)
        with torch.no_grad():
            logits = network(**pairs.clean_batch().kwargs).logits[:, -1]
        handle.remove()
        return logits[rows, pairs.answers] - logits[rows, pairs.wrong]

    def first(output: Any) -> Tensor:
        return output[0] if isinstance(output, tuple) else output

    def patch(_: Any, __: Any, output: Any) -> Any:
        new = first(output).clone()
        new[index] = seen[0][index]
        return (new, *output[1:]) if isinstance(output, tuple) else new

    run(other.network, lambda _, __, output: seen.append(first(output).clone()))
    return float((run(model.network, patch) - run(model.network, lambda *_: None)).mean())


@pytest.mark.parametrize("variant", list(LAYERS))
def test_a_score_is_the_rise_when_a_hook_brings_the_other_models_value(variant: str, saved: Any, pairs: Pairs) -> None:
    model, other, folder = saved(variant)
    pairs = replace(pairs, roles=ROLES)
    scores = CMAP(source=folder, batch_size=2).score(model, pairs, MLPs())
    expected = [improvement(model, other, pairs, f"{LAYERS[variant]}.{layer}.mlp", slice(None)) for layer in range(2)]
    assert scores.values.tolist() == pytest.approx(expected, abs=3e-5)
    assert max(map(abs, expected)) > 1e-3
    streams = CMAP(source=folder, batch_size=2).score(model, pairs, TokenRoles())
    expected = [
        improvement(model, other, pairs, f"{LAYERS[variant]}.{layer}", (torch.arange(3), ROLES["x"]))
        for layer in range(2)
    ]
    assert streams.values.tolist() == pytest.approx(expected, abs=3e-5)


def test_the_other_model_and_its_weights_are_told_with_the_scores(saved: Any, even: Pairs) -> None:
    model, other, folder = saved("gpt2")
    scores = CMAP(source=folder).score(model, even, Streams())
    assert scores.meta["settings"]["source"] == folder
    assert scores.meta["source_hash"] == ip.load(folder).weights_hash == other.weights_hash
    assert scores.meta["source_hash"] != scores.meta["weights_hash"]
    assert "source_hash" not in ActivationPatching().score(model, even, Streams()).meta
    json.dumps(dict(scores.meta))


def test_an_edited_model_is_compared_without_the_edit_in_the_other(saved: Any, even: Pairs) -> None:
    model, _, folder = saved("gpt2")
    with model.trace(even.clean_batch(), run=False) as t:
        model.layers[0].mlp.output[:] = 0
    found = CMAP(source=folder).score(model.edited(t), even, Positions(last=1))
    plain = CMAP(source=folder).score(model, even, Positions(last=1))
    assert found.meta["source_hash"] == plain.meta["source_hash"]
    assert (found.values - plain.values).abs().max() > 1e-3


def test_a_neuron_that_writes_twice_as_much_in_the_other_model_brings_that(one_neuron: Any, neuron: Any) -> None:
    model, pairs = one_neuron("relu")
    other, _ = one_neuron("relu")
    with torch.no_grad():
        other.network.get_submodule("transformer.h.0.mlp.c_proj").weight.mul_(2)
    model.backend.opener = lambda name, dtype, device: {"tuned": other}[name]
    clean, corrupt, direct = neuron
    scores = CMAP(source="tuned").score(model, pairs, Nodes())
    assert scores["m0"] == pytest.approx(clean)
    assert scores["input"] == pytest.approx(0.0)  # it is the same in both
    patched = ActivationPatching().score(model, pairs, Nodes())
    assert (patched["m0"], patched["input"]) == (
        pytest.approx(clean - corrupt),
        pytest.approx(direct + clean - corrupt),
    )


def test_without_another_model_there_is_nothing_to_patch_in(make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        CMAP().score(make("gpt2"), even, Streams())
    assert str(failure.value) == 'CMAP takes values from another model. Name it: CMAP(source="./folder").'
    with pytest.raises(LoadError, match="There is no folder nowhere"):
        CMAP(source="./nowhere").score(make("gpt2"), even, Streams())
    bare = ip.Model(make("gpt2").network, info=ModelInfo("bare", "test"))
    with pytest.raises(LoadError) as failed:
        CMAP(source="./nowhere").score(bare, even, Streams())
    assert str(failed.value) == (
        "'./nowhere' cannot be opened from here: this model was not made by ip.load, ip.wrap or ip.build, so it does "
        "not know how models are loaded. Make it with one of these."
    )


def test_models_that_do_not_fit_are_refused(make: Make, even: Pairs) -> None:
    model = make("llama")
    sizes = {"layers": 2, "heads": 2, "kv_heads": 1, "width": 24, "neurons": 40, "vocab": 50, "pad_token_id": 0}
    others = {
        "deep": ip.build("llama", **{**sizes, "layers": 3, "neurons": 16}),
        "few": ip.build("llama", **{**sizes, "vocab": 20}),
    }
    model = ip.wrap(model.network)
    model.backend.opener = lambda name, dtype, device: others[name]
    with pytest.raises(SearchError) as failure:
        CMAP(source="deep").score(model, even, Streams())
    assert str(failure.value) == (
        "llama is of other sizes than LlamaForCausalLM: layers is 3 in place of 2, neurons is 16 in place of 40. CMAP "
        "needs two models with the same units, such as a model and a fine-tuned one."
    )
    with pytest.raises(SearchError, match="llama knows 20 tokens, and the prompts have the token"):
        CMAP(source="few").score(model, even, Streams())
    with pytest.raises(SearchError, match="It patches places: Heads"):
        CMAP(source="few").score(model, even, Edges())


class Words:
    """A tokenizer that calls token i by a word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        return [f"{self.word}{i}" for i in ids] if isinstance(ids, list) else f"{self.word}{ids}"


def test_models_that_read_other_tokens_are_refused(make: Make, even: Pairs) -> None:
    model = ip.wrap(make("llama").network, tokenizer=Words("a"))
    others = {word: ip.wrap(make("llama").network, tokenizer=Words(word)) for word in "ab"}
    model.backend.opener = lambda name, dtype, device: others[name]
    assert CMAP(source="a").score(model, even, Streams()).values.abs().max() < 1e-6  # it is the same model
    with pytest.raises(
        SearchError, match=r"read the token \d+ as 'a\d+' and 'b\d+'. CMAP needs two models that read the"
    ):
        CMAP(source="b").score(model, even, Streams())
