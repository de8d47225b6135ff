"""Small byte-level tokenizers, trained here in a moment, so that these tests need no model; and the embedded one's."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import interpose as ip
from interpose.tasks._ioi_text import NAMES, OBJECTS, PLACES, TEMPLATES
from interpose.tasks.subject_verb import _WRITTEN_NOUNS

# Left out of what the tokenizer is trained on, so that it splits most of them, as real vocabularies split some names.
_UNSEEN_NAMES = frozenset(name for split in NAMES.values() for name in split[3::7])


# How Llama 3 cuts: up to three digits go together, and the space before a number stays by itself.
_THREES = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}{1,3}|[^\p{L}\p{N}]"), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
)


def _trained(texts: list[str], size: int = 4000, cut: Any = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which every word of `texts` is one token after a space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = cut or pre_tokenizers.ByteLevel(add_prefix_space=False)
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


NOUNS = [f" {noun}{ending}" for split in _WRITTEN_NOUNS.values() for noun in split.split(", ") for ending in ("", "s")]


@pytest.fixture(scope="session")
def writers() -> dict[str, SimpleNamespace]:
    """A stand-in for a model for each way in which vocabularies write numbers; all of them know the nouns.

    `digits`: each digit is a token, as in the embedded model, whose tokenizer this is. `pairs`: two digits go together,
    with the space before them, as in GPT-2. `threes`: up to three digits, as in Llama 3.
    """
    hundreds, tens = [str(number) for number in range(110, 200)], [str(number) for number in range(10, 100)]
    pairs = [f" {number}" for number in tens] * 9 + [f"{number:02}" for number in range(100)]
    words = [*NOUNS, " is", " are", " was", " were", " has", " have", " which", " where"] * 3
    known = {
        "digits": ip.load("smollm2-135m-instruct").tokenizer,
        "pairs": _trained([*pairs, *words]),
        "threes": _trained([*hundreds, *tens * 9, *words], cut=_THREES),
    }
    return {name: SimpleNamespace(tokenizer=tokenizer) for name, tokenizer in known.items()}
