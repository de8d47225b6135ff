"""A small byte-level tokenizer, trained here in a moment, so that these tests need no model."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from interpose.tasks._ioi_text import NAMES, OBJECTS, PLACES, TEMPLATES

# Left out of what the tokenizer is trained on, so that it splits most of them, as real vocabularies split some names.
_UNSEEN_NAMES = frozenset(name for split in NAMES.values() for name in split[3::7])


def _trained(texts: list[str], size: int = 4000) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which every word of `texts` is one token after a space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, show_progress=False, special_tokens=["<e>"]
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Knows most of the task's names as one token, and splits others."""
    names = [f" {name}" for split in NAMES.values() for name in split if name not in _UNSEEN_NAMES]
    plain = "".join(letter if letter not in "{}" else " " for split in TEMPLATES.values() for letter in " ".join(split))
    return _trained([*names, *(f" {word}" for word in [*PLACES, *OBJECTS]), plain])


@pytest.fixture(scope="session")
def model(tokenizer: PreTrainedTokenizerFast) -> SimpleNamespace:
    """What a task needs of a model to make pairs."""
    return SimpleNamespace(tokenizer=tokenizer)


@pytest.fixture(scope="session")
def split_names(tokenizer: PreTrainedTokenizerFast) -> frozenset[str]:
    """Names that the tokenizer makes several tokens of."""
    names = [name for split in NAMES.values() for name in split]
    several = frozenset(name for name in names if len(tokenizer(f" {name}")["input_ids"]) > 1)
    assert 10 < len(several) < len(names) / 2
    return several


@pytest.fixture(scope="session")
def trained() -> Callable[..., PreTrainedTokenizerFast]:
    """Trains a byte-level BPE tokenizer on texts, with at most `size` tokens."""
    return _trained
