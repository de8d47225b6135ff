"""An adapter that is loaded is in the weights: every site is what peft's own model computes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import interpose as ip
from interpose.errors import LoadError
from interpose.loading import fresh, merging

# peft asks transformers for this by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SIZES = {"layers": 2, "width": 32, "heads": 4, "neurons": 48, "vocab": 50}
IDS = torch.tensor([[1, 2, 3, 4], [9, 8, 7, 6]])
TARGETS = {
    "llama": ["q_proj", "v_proj", "o_proj", "down_proj", "gate_proj"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "gpt_neox": ["query_key_value", "dense", "dense_4h_to_h"],
}


@pytest.fixture(scope="module", params=list(TARGETS))
def saved(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A tiny model, a LoRA on it whose every matrix is random, and peft's own model of both."""
    from peft import LoraConfig, get_peft_model

    folder, targets = tmp_path_factory.mktemp(request.param), TARGETS[request.param]
    torch.manual_seed(0)
    network = fresh.stock(request.param, **SIZES)
    for weight in network.parameters():
        weight.data *= 3
    network.save_pretrained(folder / "base")
    fan = request.param == "gpt2"  # its weights are stored input-first
    config = LoraConfig(r=3, lora_alpha=7, target_modules=targets, lora_dropout=0.5, fan_in_fan_out=fan)
    model = get_peft_model(network, config)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data.normal_(0, 0.3)
    model.save_pretrained(folder / "adapter")
    return folder / "base", folder / "adapter", model.eval()


def hooked(model: Any, path: str) -> tuple[Tensor, Tensor]:
    """What peft's own model gives: its logits, and the output of one module, LoRA layer or not."""
    caught: list[Tensor] = []
    module = next(part for name, part in model.named_modules() if name.endswith(path))
    handle = module.register_forward_hook(lambda _, __, output: caught.append(output))
    with torch.no_grad():
        logits = model(IDS, use_cache=False).logits
    handle.remove()
    return logits, caught[0]


def test_logits_and_projections_are_those_of_peft(saved: tuple[Path, Path, Any]) -> None:
    base, adapter, peft_model = saved
    model, plain = ip.load(base, adapter=adapter), ip.load(base)
    query = str(model.table().path("query", 1))
    expected, projected = hooked(peft_model, query)
    with model.trace(IDS):
        found = model.module(query).output.save()
        logits = model.logits.save()
        result, output = model.layers[1].attn.result.sum(2).save(), model.layers[1].attn.output.save()
        given, weights = model.layers[1].attn.input.save(), model.projection(1, "query").save()
        q = model.layers[1].attn.q.save()
    close: dict[str, float] = {"atol": 1e-4, "rtol": 1e-4}
    assert torch.allclose(logits, expected, **close)
    assert torch.allclose(found, projected, **close)
    with plain.trace(IDS):
        unadapted = plain.logits.save()
    assert not torch.allclose(unadapted, expected, atol=1e-2)
    # What is made of weights has the adapter in it too; biases are all zero in a fresh network.
    assert torch.allclose(result, output, **close)
    assert torch.allclose(torch.einsum("bpm,hdm->bphd", given, weights), q, **close)


def test_nothing_of_peft_is_left_and_the_model_says_what_it_is(saved: tuple[Path, Path, Any]) -> None:
    base, adapter, _ = saved
    model, plain = ip.load(base, adapter=str(adapter)), ip.load(base)
    assert [name for name, _ in model.network.named_modules()] == [name for name, _ in plain.network.named_modules()]
    assert not any("lora" in name for name in model.network.state_dict())
    assert not model.network.training
    assert not any(weight.requires_grad for weight in model.network.parameters())
    assert model.info.name == f"{base} + adapter"
    assert model.info.note == f"adapter {adapter} merged"
    assert model.weights_hash not in ("", plain.weights_hash)


@pytest.fixture
def copied(saved: tuple[Path, Path, Any], tmp_path: Path) -> Callable[..., Path]:
    """A copy of the adapter with changes to its config and weights."""

    def copy(weights: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None, **config: Any) -> Path:
        _, adapter, _ = saved
        folder = tmp_path / "changed"
        folder.mkdir()
        held = json.loads((adapter / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(held | config))
        tensors = load_file(adapter / "adapter_model.safetensors")
        save_file(weights(tensors) if weights else tensors, folder / "adapter_model.safetensors")
        return folder

    return copy


def test_what_cannot_be_merged_is_refused(
    saved: tuple[Path, Path, Any], copied: Callable[..., Path], tmp_path: Path
) -> None:
    base = saved[0]
    folder = copied(lambda tensors: {name: value[:, :-1].contiguous() for name, value in tensors.items()})
    with pytest.raises(LoadError, match="does not fit into a .*: .*size mismatch|Error.* in loading"):
        ip.load(base, adapter=folder)
    (folder / "adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(LoadError, match="does not fit into a"):
        ip.load(base, adapter=folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(LoadError, match="has only pickled weights .adapter_model.bin., and opening a pickle can run"):
        ip.load(base, adapter=folder)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(LoadError, match="has no adapter_model.safetensors; interpose reads safetensors only"):
        ip.load(base, adapter=folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(LoadError, match="has no adapter_config.json, so it is no adapter"):
        ip.load(base, adapter=folder)
    with pytest.raises(LoadError, match="There is no folder .*nowhere with an adapter"):
        ip.load(base, adapter=tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", 3])
def test_adapters_without_weights_of_the_network_are_refused(
    saved: tuple[Path, Path, Any], copied: Callable[..., Path], kind: Any
) -> None:
    with pytest.raises(LoadError, match=f"is of the kind {kind}, which adds tokens and no weights"):
        ip.load(saved[0], adapter=copied(peft_type=kind))


def test_an_adapter_of_another_model_is_refused(saved: tuple[Path, Path, Any], copied: Callable[..., Path]) -> None:
    with pytest.raises(LoadError, match="does not fit into a .*Target modules"):
        ip.load(saved[0], adapter=copied(target_modules=["wqkv"]))


def test_without_peft_the_message_says_what_to_install(
    saved: tuple[Path, Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr(merging, "find_spec", lambda name: None)
    with pytest.raises(
        LoadError, match=r"needs the package peft. Write `pip install peft` \(or interpose\[adapters\]\)"
    ):
        ip.load(saved[0], adapter=saved[1])


def test_an_adapter_of_the_hub_is_looked_for_there(saved: tuple[Path, Path, Any]) -> None:
    with pytest.raises(LoadError, match=r"The adapter org/none could not be fetched: .*write adapter='./none'"):
        ip.load(saved[0], adapter="org/none")


def test_a_quantised_base_is_refused(saved: tuple[Path, Path, Any]) -> None:
    network = fresh.stock("llama", **SIZES)
    network.is_quantized = True
    with pytest.raises(LoadError, match="cannot be merged into quantised weights without rounding them again"):
        merging.merged(network, str(saved[1]))
