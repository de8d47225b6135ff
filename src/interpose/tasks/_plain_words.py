"""What tasks over plain words share: words that a vocabulary has as one token, draws without repeats, checked names."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import TypeVar

from interpose.errors import TaskError
from interpose.tasks._align import Tokenized, is_one_token, pieces, tokenizer_of

T = TypeVar("T")
_TRIES = 50


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": _listed(
            "apple river stone cloud horse table garden window music paper silver bridge forest candle mirror bottle "
            "ladder hammer blanket pocket"
        ),
        "validation": _listed(
            "water house light tree mountain letter circle winter summer doctor engine island market orange pencil "
            "rabbit school tiger train valley"
        ),
        "test": _listed(
            "book chair door field fire flower glass gold hand heart iron king leaf moon night ocean road salt snow "
            "wheel"
        ),
    }
)
"""The words of each split: no two splits share one."""


def check_choice(task: str, what: str, given: str, known: Sequence[str]) -> None:
    """Refuse a name that a task does not know, with those that it does."""
    if given not in known:
        raise TaskError(f"{task} has no {what} {given!r}; expected one of {', '.join(known)}.")


def known_words(task: str, model: Tokenized, words: Sequence[str], fewest: int) -> tuple[str, ...]:
    """The words that are one token, at the beginning of a text and inside it.

    Args:
        task: the name of the task, for the error.
        model: whose tokenizer is used.
        words: the words to choose from.
        fewest: how many are needed.

    Raises:
        TaskError: there are fewer.
    """
    tokenizer = tokenizer_of(model)
    inside, alone = pieces(tokenizer, [f" {word}" for word in words]), pieces(tokenizer, list(words))
    usable = tuple(
        word
        for word, one, other in zip(words, inside, alone, strict=True)
        if is_one_token(tokenizer, one) and is_one_token(tokenizer, other)
    )
    if len(usable) < fewest:
        raise TaskError(
            f"{task} needs words that are one token each. This tokenizer has {len(usable)} of {len(words)} as one "
            f"token; expected at least {fewest}. Use a model with a vocabulary of English words, or give your own "
            "prompts to ip.pairs(...)."
        )
    return usable


def draw(task: str, n: int, random: Random, one: Callable[[Random], T]) -> list[T]:
    """Draw n different things, each by `one`.

    Raises:
        TaskError: n is below one, or there are not as many different ones to be found.
    """
    if n < 1:
        raise TaskError(f"{task} was asked for n={n} pairs: write an n of at least 1.")
    found: dict[T, None] = {}
    for _ in range(_TRIES * n + 1000):
        found[one(random)] = None
        if len(found) == n:
            return list(found)
    raise TaskError(
        f"{task} was asked for n={n} pairs, and {len(found)} different prompts were found with these settings. "
        "Write a smaller n."
    )
