"""A tokenizer from a list of words: text is split into words, and each word is one token."""

from pathlib import Path
from typing import Any

from interpose.errors import LoadError
from interpose.loading.cards import Vocabulary

_PAD, _UNKNOWN = "<pad>", "<unk>"


def tokenizer(vocabulary: Vocabulary, folder: Path = Path(), name: str = "") -> Any:
    """The tokenizer that a card describes; it pads on the left.

    Args:
        vocabulary: a list of words, or the name of a `tokenizer.json`.
        folder: where that file lies.
        name: what the tokenizer is called in messages.

    Returns:
        a fast tokenizer of transformers. A word with a blank in front of it is the same token as without.

    Raises:
        LoadError: there is no such file, or it cannot be read.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if vocabulary.file:
        path = folder / vocabulary.file
        try:
            made = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises a plain Exception for a missing and for a damaged file
            raise LoadError(f"The tokenizer {path} cannot be read: {error}.") from error
    else:
        made = _of_words(vocabulary)
    special = {"unk_token": _UNKNOWN, "pad_token": _PAD, "bos_token": vocabulary.first}
    present = {role: word for role, word in special.items() if word and made.token_to_id(word) is not None}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, padding_side="left", **present)
    wrapped.name_or_path = name
    return wrapped


def _of_words(vocabulary: Vocabulary) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    ids = {word: number for number, word in enumerate(vocabulary.words)}
    if len(ids) < len(vocabulary.words) or any(len(word.split()) != 1 for word in ids):
        raise LoadError("A vocabulary is a list of different words without blanks; this one is not.")
    made = Tokenizer(models.WordLevel(ids, unk_token=_UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Whitespace() if vocabulary.punctuation else pre_tokenizers.WhitespaceSplit()
    if vocabulary.first:
        if vocabulary.first not in ids:
            raise LoadError(f"The word in front of every prompt, {vocabulary.first!r}, is not in the vocabulary.")
        made.post_processor = processors.TemplateProcessing(
            single=f"{vocabulary.first} $A", special_tokens=[(vocabulary.first, ids[vocabulary.first])]
        )
    return made
