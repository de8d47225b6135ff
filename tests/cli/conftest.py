"""A folder with a small model that does the task, made by hand and saved as any other model is."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import interpose as ip
from interpose.cli.main import main
from interpose.methods import EAPIG
from interpose.search.edge_patching import EdgePatching
from interpose.tasks._ioi_text import NAMES, OBJECTS, PLACES, TEMPLATES


@cache
def words() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer in which every word of the task is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=["<e>"],
    )
    names = [f" {name}" for split in NAMES.values() for name in split]
    plain = "".join(letter if letter not in "{}" else " " for split in TEMPLATES.values() for letter in " ".join(split))
    tokenizer.train_from_iterator([*names, *(f" {word}" for word in [*PLACES, *OBJECTS]), plain], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>")


def save(folder: Path, layers: int, heads: int, able: bool = True) -> Path:
    """Write a Llama whose first layer says: less of whatever stands here twice.

    Its heads attend to all tokens alike and write the opposite of what they read, so that of two names the one that
    stands there once is preferred. A model that is not able writes what it reads into directions of chance.
    """
    tokenizer = words()
    torch.manual_seed(0)
    sizes = {"layers": layers, "heads": heads, "kv_heads": heads, "width": 64, "neurons": 16, "positions": 128}
    network: Any = ip.build("llama", **sizes, vocab=len(tokenizer), tie_word_embeddings=True, pad_token_id=0).network
    with torch.no_grad():
        network.model.embed_tokens.weight.normal_()
        for number, layer in enumerate(network.model.layers):
            attn = layer.self_attn
            attn.q_proj.weight.zero_()
            attn.v_proj.weight.copy_(torch.eye(64))
            sign = -torch.eye(64) if able else torch.randn(64, 64) / 8
            attn.o_proj.weight.copy_(sign * (20 if number == 0 else 0.1))
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, two heads: 46 edges."""
    return save(tmp_path_factory.mktemp("models") / "a small model", layers=2, heads=2)


@pytest.fixture(scope="session")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer, two heads: 13 edges, for what does not depend on the size."""
    return save(tmp_path_factory.mktemp("models") / "smallest", layers=1, heads=2)


@pytest.fixture(scope="session")
def saved() -> Callable[..., Path]:
    """Writes a model of another size, or one that cannot do the task."""
    return save


def command(folder: Path, out: Path) -> list[str]:
    return ["locate", "ioi", "--model", str(folder), "--examples", "4", "--proof", "4", "--out", str(out)]


@pytest.fixture(scope="session")
def out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run wrote, into a folder that was not there, under a path with a space."""
    out = tmp_path_factory.mktemp("runs") / "my results" / "ioi"
    assert main(command(folder, out)) == 0
    return out


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs the job into `out` of this test's own folder, with more or other options, and gives its exit code."""
    return lambda *more: main([*command(folder, tmp_path / "out"), *more])


class Seen:
    """How often edges were scored, and which circuits were run; `stop_after` so many circuits a run is stopped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scored, self.circuits, self.stop_after = 0, list[bytes](), 10**9
        search, call = EAPIG.search, EdgePatching.__call__

        def seen_search(*args: Any) -> torch.Tensor:
            self.scored += 1
            return search(*args)

        def seen_call(patching: EdgePatching, masks: torch.Tensor) -> Iterator[torch.Tensor]:
            for mask, row in zip(masks, call(patching, masks), strict=True):
                if len(self.circuits) == self.stop_after:
                    raise KeyboardInterrupt
                self.circuits.append(mask.numpy().tobytes())
                yield row

        monkeypatch.setattr(EAPIG, "search", seen_search)
        monkeypatch.setattr(EdgePatching, "__call__", seen_call)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What the runs of this test do."""
    return Seen(monkeypatch)
