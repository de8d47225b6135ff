"""A folder with a small model that does the task, made by hand and saved as any other model is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import interpose as ip
from interpose.tasks._ioi_text import NAMES, OBJECTS, PLACES, TEMPLATES


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
def saved() -> Callable[..., Path]:
    """Writes a model of another size, or one that cannot do the task."""
    return save
