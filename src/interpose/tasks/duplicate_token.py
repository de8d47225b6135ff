"""Duplicate tokens: which word stands there twice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import perm
from random import Random
from types import MappingProxyType
from typing import NamedTuple

from interpose.errors import TaskError
from interpose.tasks._align import tokenizer_of
from interpose.tasks._drawing import Example, request
from interpose.tasks._roles import Filled, spoken
from interpose.tasks._words import WORDS, arranged, plain_roles, single_of_split
from interpose.tasks.base import CausalModel, Pairs, Task, Tokenized, Variable

ASKED = "twice"
"""The word at the end, which asks."""


class _Prompt(NamedTuple):
    """Words of which one stands at two places, `place` and `again`; and the place of another, before `again`."""

    words: tuple[str, ...]
    place: int
    again: int
    other: int

    @property
    def filled(self) -> Filled:
        return spoken([*self.words, ASKED], first_time=self.place, second_time=self.again)

    def with_again(self, word: str) -> "_Prompt":
        """The same words, with another one where the word is said again."""
        return self._replace(words=(*self.words[: self.again], word, *self.words[self.again + 1 :]))


class _Counterfactual(NamedTuple):
    meaning: str
    change: Callable[[_Prompt, list[str], Random], _Prompt]


def _repeated(words: Sequence[str], place: int, again: int, other: int) -> _Prompt:
    """Different words, of which the one at `place` is said again at `again`."""
    return _Prompt((*words[:again], words[place], *words[again:]), place, again, other)


def _other_words(prompt: _Prompt, spare: list[str], random: Random) -> _Prompt:
    length = len(prompt.words) - 1
    again = random.choice([at for at in _agains(length) if at != prompt.again])
    place = random.choice([at for at in range(1, again) if at != prompt.place])
    return _repeated(spare[:length], place, again, prompt.other)


def _agains(length: int) -> range:
    """Where a word may be said again: two words that are not the first stand before it."""
    return range(3, length + 1)


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
            The pairs. Their `clean_inputs` and `corrupt_inputs` are inputs of `causal_model`. Their roles are
            `first_time` and `second_time`, the two places of the word, and `end`.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer has too few of the words as one token.
        """
        asked = request(self, n, seed, split, counterfactual)
        words = single_of_split(tokenizer_of(model), asked, "words", WORDS, 2 * self.length, alone=True)
        wrongs, spare, order = asked.random("wrong"), asked.random("spare"), asked.random("clean")
        cells = [(place, again) for again in _agains(self.length) for place in range(1, again)]
        order.shuffle(cells)
        change = _COUNTERFACTUALS[asked.counterfactual].change
        examples = []
        for (place, again), number in asked.draw(cells, perm(len(words), self.length), order):
            shown, _ = arranged(words, self.length, number)
            other = wrongs.choice([at for at in range(1, again) if at != place])
            clean = _repeated(shown, place, again, other)
            unused = [word for word in words if word not in shown]
            changed = change(clean, spare.sample(unused, len(unused)), spare)
            examples.append(
                Example(
                    clean=clean.filled,
                    corrupt=changed.filled.text,
                    answer=f" {shown[place]}",
                    wrong=f" {shown[other]}",
                    clean_inputs={"words": clean.words},
                    corrupt_inputs={"words": changed.words},
                )
            )
        return plain_roles(asked.pairs(model, examples), examples[0].clean.words)

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
