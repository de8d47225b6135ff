"""Words: lists of plain ones, those that are one token here, and the ordered choice that a number stands for."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

from interpose.errors import TaskError
from interpose.tasks._align import is_one_token, pieces
from interpose.tasks._drawing import Request, called
from interpose.tasks._pairs import Pairs

Item = TypeVar("Item")
WORDS: Mapping[str, str] = MappingProxyType(
    {
        "train": "apple river stone cloud horse table garden window music paper silver bridge forest candle mirror "
        "bottle ladder hammer blanket pocket",
        "validation": "water house light tree mountain letter circle winter summer doctor engine island market orange "
        "pencil rabbit school tiger train valley",
        "test": "book chair door field fire flower glass gold hand heart iron king leaf moon night ocean road salt "
        "snow wheel",
    }
)
"""The words of tasks in which they mean nothing to each other: no two splits share one."""


def arranged(items: Sequence[Item], count: int, number: int) -> tuple[tuple[Item, ...], int]:
    """The ordered choice of `count` of the items, without repeats, that a number stands for.

    Args:
        items: what is chosen from.
        count: how many are chosen.
        number: from 0; numbers below `math.perm(len(items), count)` give each choice once.

    Returns:
        The choice, and what is left of the number for other choices: it is divided by that count.
    """
    left, chosen = list(items), []
    for _ in range(count):
        number, place = divmod(number, len(left))
        chosen.append(left.pop(place))
    return tuple(chosen), number


def single(tokenizer: Any, words: Sequence[str], alone: bool = False) -> tuple[str, ...]:
    """Those of the words that are one token with a space in front; if `alone`, also without, as a text begins."""
    found = [pieces(tokenizer, [f" {word}" for word in words])]
    if alone:
        found.append(pieces(tokenizer, words))
    return tuple(word for word, *ids in zip(words, *found, strict=True) if all(is_one_token(tokenizer, i) for i in ids))


def single_of_split(
    tokenizer: Any, asked: Request, what: str, words: Mapping[str, str], fewest: int, alone: bool = False
) -> tuple[str, ...]:
    """Of the words of the split, which are one text with blanks, those that are one token with a space in front.

    Args:
        tokenizer: what decides.
        asked: says which split.
        what: the words are called in an error.
        words: by split.
        fewest: how many the task needs.
        alone: they are to be one token without the space too, since a prompt may begin with them.

    Raises:
        TaskError: they are fewer than the task needs.
    """
    known = words[asked.split].split()
    found = single(tokenizer, known, alone)
    if len(found) < fewest:
        how = "with and without a leading space" if alone else "with a leading space"
        raise TaskError(
            f"{type(asked.task).__name__} needs {what} that are one token {how}. The tokenizer "
            f"{called(tokenizer)} has {len(found)} of {len(known)} in split {asked.split!r}; expected at "
            f"least {fewest}. Use a model with a vocabulary of English words, or give your own prompts to ip.pairs()."
        )
    return found


def plain_roles(made: Pairs, names: Collection[str]) -> Pairs:
    """The pairs with some roles called by the bare word, since that is one token in every prompt."""
    bare = {role: role.removesuffix("_last") for role in made.roles}
    return replace(
        made, roles={bare[role] if bare[role] in names else role: where for role, where in made.roles.items()}
    )
