"""Which token of a prompt plays which role: words are remembered while a sentence is filled in, then found as tokens.

Positions count from the last token (-1), so that a role means the same on prompts of unequal length.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from string import Formatter
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from interpose.errors import TaskError
from interpose.tasks._align import encode


class Span(NamedTuple):
    """A piece of a text: its characters from `start` up to, not including, `end`."""

    start: int
    end: int


class Filled(NamedTuple):
    """A sentence with its gaps filled, and where each filling stands."""

    text: str
    words: Mapping[str, Span]


def fill(template: str, **values: str) -> Filled:
    """Fill the gaps of `template`, as `str.format` would, and remember where each filling stands.

    Args:
        template: a sentence with gaps such as `{subject}`, each named once.
        values: what goes into each gap; a name without a gap is ignored.

    Returns:
        The text and the span of every gap's filling.

    Raises:
        TaskError: if a gap is named twice, or has no value.
    """
    text, words = "", {}
    for before, gap, _, _ in Formatter().parse(template):
        text += before
        if gap is None:
            continue
        if gap in words or gap not in values:
            what = "stands twice" if gap in words else "has no value"
            raise TaskError(f"The gap {{{gap}}} {what} in {template!r}. Write each gap once, under a name of its own.")
        words[gap] = Span(len(text), len(text) + len(values[gap]))
        text += values[gap]
    return Filled(text, words)


def spoken(words: Sequence[str], **roles: int) -> Filled:
    """Words with a blank between two of them, and where those stand that play a role.

    Args:
        words: the words in order.
        roles: by role, which of the words it is.
    """
    starts = list(accumulate((len(word) + 1 for word in words), initial=0))
    spans = {role: Span(starts[at], starts[at] + len(words[at])) for role, at in roles.items()}
    return Filled(" ".join(words), spans)


def token_roles(
    tokenizer: Any, texts: Sequence[str], words: Sequence[Mapping[str, Span]]
) -> dict[str, Int[Tensor, " n"]]:
    """Positions of words as tokens.

    Args:
        tokenizer: what the prompts are cut with. One that knows the characters of each token is asked for them; with
            any other the beginnings of the text are tokenised, which gives the same as long as no token reaches over
            the end of a word.
        texts: the clean prompts.
        words: for each prompt, the span of every word that plays a role; the same names for every prompt.

    Returns:
        By role, a position for each prompt, counted from the last: `NAME_last`, a word's last token; `NAME_first`, its
        first one, where the word is several tokens in some prompt; `end`, the last token of the prompt (-1).

    Raises:
        TaskError: if a word has no token of its own.
    """
    rows = [tokens_of(tokenizer, text, spans) for text, spans in zip(texts, words, strict=True)]
    roles = {}
    for name in words[0] if words else ():
        first, last = (torch.tensor([row[name][side] for row in rows]) for side in (0, 1))
        if bool((first != last).any()):
            roles[f"{name}_first"] = first
        roles[f"{name}_last"] = last
    return {**roles, "end": torch.full((len(texts),), -1)}


def tokens_of(tokenizer: Any, text: str, words: Mapping[str, Span]) -> dict[str, tuple[int, int]]:
    """The first and the last token of each word of one prompt, counted from the last; raises as `token_roles`."""
    find = _by_offsets if getattr(tokenizer, "is_fast", False) else _by_beginnings
    return find(tokenizer, text, words)


def _by_offsets(tokenizer: Any, text: str, words: Mapping[str, Span]) -> dict[str, tuple[int, int]]:
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    found = {}
    for name, (start, end) in words.items():
        inside = [place for place, (left, right) in enumerate(offsets) if left < end and right > start]
        if not inside:
            raise _no_token(text, name, text[start:end])
        found[name] = inside[0] - len(offsets), inside[-1] - len(offsets)
    return found


def _by_beginnings(tokenizer: Any, text: str, words: Mapping[str, Span]) -> dict[str, tuple[int, int]]:
    (whole,) = encode(tokenizer, [text])
    found = {}
    for name, (start, end) in words.items():
        spaced, bare, upto = encode(tokenizer, [text[:start], text[:start].rstrip(), text[:end]])
        # The space before a word is a part of the word's first token, or a token of its own.
        before = spaced if whole[: len(spaced)] == spaced else bare
        if whole[: len(before)] != before or whole[: len(upto)] != upto or len(before) >= len(upto):
            raise _no_token(text, name, text[start:end])
        found[name] = len(before) - len(whole), len(upto) - 1 - len(whole)
    return found


def _no_token(text: str, name: str, word: str) -> TaskError:
    return TaskError(
        f"The word {word!r}, which is {name!r} in {text!r}, has no token that ends with it, so no position can be "
        "named after it. Put a space or a comma behind the word, or use a fast tokenizer "
        "(AutoTokenizer.from_pretrained(..., use_fast=True))."
    )
