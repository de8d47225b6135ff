"""Duplicate tokens: which word stands there twice."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import NamedTuple

import torch

from interpose.errors import TaskError
from interpose.tasks._plain_words import WORDS, check_choice, draw, known_words
from interpose.tasks.base import SPLITS, CausalModel, Pairs, Task, Tokenized, Variable, pairs

ASKED = "twice"
"""The word at the end, which asks."""


class _Prompt(NamedTuple):
    """Words of which one stands at two places, `place` and `again`; and the place of another, before `again`."""

    words: tuple[str, ...]
    place: int
    again: int
    other: int

    @property
    def text(self) -> str:
        return " ".join([*self.words, ASKED])

    def with_again(self, word: str) -> "_Prompt":
        """The same words, with another one where the word is said again."""
        return self._replace(words=(*self.words[: self.again], word, *self.words[self.again + 1 :]))


class _Counterfactual(NamedTuple):
    meaning: str
    change: Callable[[_Prompt, list[str], Random], _Prompt]


def _prompt(words: list[str], random: Random, avoid: tuple[int, int] = (-1, -1)) -> _Prompt:
    """One of different words is said again; neither of its places is the one to avoid, where there is a choice."""
    again = random.choice([i for i in range(3, len(words) + 1) if i != avoid[1]])
    place, other = sorted(random.sample(range(1, again), 2), key=lambda i: i == avoid[0])
    return _Prompt((*words[:again], words[place], *words[again:]), place, again, other)


def _other_words(prompt: _Prompt, spare: list[str], random: Random) -> _Prompt:
    return _prompt(spare[: len(prompt.words) - 1], random, (prompt.place, prompt.again))


_COUNTERFACTUALS: Mapping[str, _Counterfactual] = MappingProxyType(
    {
        "other_words": _Counterfactual(
            "every word becomes another one, and another place is repeated at another place (all tokens but the last)",
            _other_words,
        ),
        "other_duplicate": _Counterfactual(
            "another word is said again, so the wrong answer becomes the right one (1 token differs)",
            lambda prompt, *_: prompt.with_again(prompt.words[prompt.other]),
        ),
        "no_duplicate": _Counterfactual(
            "a new word stands where the word was said again, so none stands there twice (1 token differs)",
            lambda prompt, spare, _: prompt.with_again(spare[0]),
        ),
    }
)


@dataclass(frozen=True)
class DuplicateToken(Task):
    """Duplicate tokens: say the word that stands there twice.

    "stone river apple cloud river horse twice" should go on with " river". A model has to compare every word with all
    words before it.

    The answer is the word that stands there twice; the wrong answer is another word of the prompt. The first word is
    never the one, since some vocabularies have other tokens at the beginning of a text.

    Counterfactuals:

    - `other_words` (the default): every word becomes another one, and another place is repeated. Neither answer is
      there.
    - `other_duplicate`: another word is said again. The wrong answer becomes the right one.
    - `no_duplicate`: a new word stands where the word was said again. Nothing says which word to answer.

    The splits `train`, `validation` and `test` share no word but `twice`.

    Attributes:
        length: how many different words there are.
    """

    length: int = 7

    def __post_init__(self) -> None:
        if not 4 <= self.length <= 9:
            raise TaskError(f"DuplicateToken(length={self.length}) is not possible; expected 4 to 9 words.")

    @property
    def counterfactuals(self) -> Mapping[str, str]:
        """The ways in which a prompt can be changed, each with what it does; the first is the default."""
        return {name: entry.meaning for name, entry in _COUNTERFACTUALS.items()}

    def pairs(
        self, model: Tokenized, n: int = 64, seed: int = 0, split: str = "train", counterfactual: str | None = None
    ) -> Pairs:
        """Draw counterfactual pairs; see `Task.pairs`.

        Returns:
            The pairs. Their `clean_inputs` and `corrupt_inputs` are inputs of `causal_model`. Roles: `first_time` and
            `second_time`, the two places of the word; `last`.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer has too few of the words as one token.
        """
        counterfactual = counterfactual or next(iter(_COUNTERFACTUALS))
        check_choice("DuplicateToken", "split", split, SPLITS)
        check_choice("DuplicateToken", "counterfactual", counterfactual, tuple(_COUNTERFACTUALS))
        words = known_words("DuplicateToken", model, WORDS[split], 2 * self.length)
        clean = draw(
            "DuplicateToken",
            n,
            Random(f"duplicate clean {seed} {split} {n}"),
            lambda r: _prompt(r.sample(words, self.length), r),
        )
        # A generator of its own for the replacements, so that every counterfactual has the same clean prompts.
        spare, change = Random(f"duplicate spare {seed} {split} {n}"), _COUNTERFACTUALS[counterfactual].change
        corrupt = []
        for prompt in clean:
            unused = [word for word in words if word not in prompt.words]
            corrupt.append(change(prompt, spare.sample(unused, len(unused)), spare))
        made = pairs(
            model,
            clean=[prompt.text for prompt in clean],
            corrupt=[prompt.text for prompt in corrupt],
            answers=[f" {prompt.words[prompt.place]}" for prompt in clean],
            wrong=[f" {prompt.words[prompt.other]}" for prompt in clean],
        )
        first, second = (torch.tensor([getattr(prompt, at) for prompt in clean]) for at in ("place", "again"))
        end = self.length + 2
        return replace(
            made,
            info={
                "task": "duplicate-token",
                "counterfactual": counterfactual,
                "split": split,
                "seed": seed,
                "n": n,
                "length": self.length,
            },
            clean_inputs=tuple({"words": prompt.words} for prompt in clean),
            corrupt_inputs=tuple({"words": prompt.words} for prompt in corrupt),
            roles={"first_time": first - end, "second_time": second - end, "last": torch.full_like(first, -1)},
        )

    def causal_model(self) -> CausalModel:
        """Where a word is said again, and which word stands there.

        The input is `words`, all but the last one. `again` is the first place whose word stood there before, or None;
        the `answer` is the word at that place, or None.
        """
        return CausalModel(
            inputs=("words",),
            variables={
                "again": Variable(("words",), _again, "where a word is said for the second time"),
                "answer": Variable(("words", "again"), _at, "the word at that place"),
            },
            output="answer",
        )


def _again(words: tuple[str, ...]) -> int | None:
    return next((place for place, word in enumerate(words) if word in words[:place]), None)


def _at(words: tuple[str, ...], again: int | None) -> str | None:
    return None if again is None else words[again]
