"""Folders that save_pretrained wrote, and folders that it did not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

import interpose as ip
from interpose.errors import LoadError
from interpose.loading import fresh


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = fresh.stock("llama", layers=2, width=32, heads=4, kv_heads=2, neurons=48, vocab=50)
    network.save_pretrained(tmp_path / "a model")
    return tmp_path / "a model"


def test_a_folder_gives_the_network_that_was_saved(saved: Path) -> None:
    torch.manual_seed(0)
    original = fresh.stock("llama", layers=2, width=32, heads=4, kv_heads=2, neurons=48, vocab=50)
    model = ip.load(saved)
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        assert torch.equal(model.network(ids).logits, original(ids).logits)
    assert (model.info.source, model.info.name) == ("folder", str(saved))
    assert model.tokenizer is None
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


@pytest.mark.parametrize(
    ("family", "kind"),
    [("bert", "BertForMaskedLM"), ("vit", "ViTForImageClassification"), ("opt", "OPTForCausalLM")],
)
@pytest.mark.parametrize("bare", [False, True])
def test_a_folder_gives_the_kind_of_network_that_was_saved(family: str, kind: str, bare: bool, tmp_path: Path) -> None:
    sizes = {} if family == "vit" else {"vocab": 50, "pad_token_id": 0}
    network = fresh.stock(family, layers=2, width=16, heads=2, neurons=24, **sizes)
    assert type(network).__name__ == kind
    network = AutoModel.from_config(network.config).eval() if bare else network
    network.save_pretrained(tmp_path / "saved")
    model = ip.load(tmp_path / "saved")
    assert type(model.network) is type(network)
    assert all(torch.equal(weight, network.state_dict()[name]) for name, weight in model.network.state_dict().items())
    assert model.dims == ip.wrap(network).dims


def test_a_relative_folder_and_a_number_type(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.parent)
    assert ip.load("./a model", dtype="float64").dtype == torch.float64
    assert ip.load("a model", device="cpu").device == torch.device("cpu")


def test_a_tokenizer_beside_the_weights_is_loaded(saved: Path, made: Path) -> None:
    (prepared,) = (made / "models" / "tiny").glob("*-*")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (saved / name).write_bytes((prepared / name).read_bytes())
    assert ip.load(saved).tokenizer("a").input_ids == ip.load(prepared).tokenizer("a").input_ids


def test_pickled_weights_are_refused_unopened(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(b"opening this would fail otherwise")
    with pytest.raises(LoadError) as caught:
        ip.load(saved)
    assert str(caught.value) == (
        f"{saved} holds pickled weights (pytorch_model.bin), and opening a pickle can run code; interpose reads "
        "safetensors only. If you trust the file, convert it once: "
        "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)."
    )


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def forget(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})


def strange(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "nothing_known"}')


def bare(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (cut, "transformers could not read the folder {}: "),
        (forget, "lack 1 weights of a LlamaForCausalLM, for example model.layers.1.mlp.up_proj.weight."),
        (strange, "`nothing_known`"),
        (bare, "{} has a config.json but no weights: there is no .safetensors file in it."),
        (no_config, "{} has no config.json, so it is no folder that save_pretrained wrote; it holds "),
    ],
)
def test_a_folder_that_cannot_be_read_says_why(saved: Path, damage: Any, text: str) -> None:
    damage(saved)
    with pytest.raises(LoadError) as caught:
        ip.load(saved)
    assert text.format(saved) in str(caught.value)


def test_a_missing_folder_and_a_file_are_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved)
    with pytest.raises(LoadError, match=r"There is no folder nowhere \(looked for .*/a model/nowhere\)\."):
        ip.load("./nowhere")
    with pytest.raises(LoadError, match=r"model\.safetensors is a file\. Name the folder that holds config\.json"):
        ip.load("./model.safetensors")


def test_code_that_comes_with_a_model_is_not_run(saved: Path, tmp_path: Path) -> None:
    (saved / "config.json").write_text(
        '{"model_type": "odd", "auto_map": {"AutoConfig": "odd.Odd", "AutoModelForCausalLM": "odd.Odd"}}'
    )
    (saved / "odd.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')\nclass Odd: pass\n")
    with pytest.raises(LoadError, match="could not read the folder"):
        ip.load(saved)
    assert not (tmp_path / "was run").exists()
