"""Induction: what came after a word the last time comes after it again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import perm
from types import MappingProxyType
from typing import NamedTuple

from interpose.errors import TaskError
from interpose.tasks._align import tokenizer_of
from interpose.tasks._drawing import Example, request
from interpose.tasks._roles import Filled, spoken
from interpose.tasks._words import WORDS, arranged, plain_roles, single_of_split
from interpose.tasks.base import CausalModel, Pairs, Task, Tokenized, Variable


class _Prompt(NamedTuple):
    """The words that stand there first, which of them is repeated at the end, and which other one could have been."""

    words: tuple[str, ...]
    place: int
    other: int

    @property
    def filled(self) -> Filled:
        shown = [*self.words, self.words[self.place]]
        return spoken(shown, earlier=self.place, follower=self.place + 1, query=len(self.words))


class _Counterfactual(NamedTuple):
    meaning: str
    change: Callable[[_Prompt, list[str]], _Prompt]


def _other_words(prompt: _Prompt, spare: list[str]) -> _Prompt:
    return prompt._replace(words=tuple(spare[: len(prompt.words)]))


def _other_follower(prompt: _Prompt, spare: list[str]) -> _Prompt:
    words = list(prompt.words)
    words[prompt.place + 1] = spare[0]
    return prompt._replace(words=tuple(words))


_COUNTERFACTUALS: Mapping[str, _Counterfactual] = MappingProxyType(
    {
        "other_words": _Counterfactual(
            "every word becomes another one, in the same pattern, so neither answer is there (all tokens differ)",
            _other_words,
        ),
        "other_query": _Counterfactual(
            "the last word repeats another one, so the wrong answer becomes the right one (1 token differs)",
            lambda prompt, _: prompt._replace(place=prompt.other),
        ),
        "other_follower": _Counterfactual(
            "the word that came after becomes one that is nowhere else in the prompt (1 token differs)",
            _other_follower,
        ),
    }
)


@dataclass(frozen=True)
class Induction(Task):
    """Induction: go on as the same word went on before.

    "stone river apple cloud horse river" should go on with " apple". The words have no meaning for each other, so a
    model has to find where the last word stood before and to say what came after it.

    The answer is the word that came after; the wrong answer is the word that came after another one. No word of the
    prompt but the last stands there twice. The last word never repeats the first, since some vocabularies have other
    tokens at the beginning of a text.

    Counterfactuals:

    - `other_words` (the default): every word becomes another one, in the same pattern. Neither answer is there.
    - `other_query`: the last word repeats another word. The wrong answer becomes the right one.
    - `other_follower`: the word that came after becomes another one. The right answer is gone.

    The splits `train`, `validation` and `test` share no word.

    Attributes:
        length: how many words stand before the last one.
    """

    length: int = 8

    def __post_init__(self) -> None:
        if not 4 <= self.length <= 10:
            raise TaskError(f"Induction(length={self.length}) is not possible; expected 4 to 10 words.")

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
            `earlier`, where the last word stood before; `follower`, the word after it there; `query`, the last word;
            and `end`, which is the same place.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer has too few of the words as one token.
        """
        asked = request(self, n, seed, split, counterfactual)
        words = single_of_split(tokenizer_of(model), asked, "words", WORDS, 2 * self.length, alone=True)
        wrongs, spare, order = asked.random("wrong"), asked.random("spare"), asked.random("clean")
        places = range(1, self.length - 1)
        change = _COUNTERFACTUALS[asked.counterfactual].change
        examples = []
        drawn = asked.draw(order.sample(places, len(places)), perm(len(words), self.length), order)
        for place, number in drawn:
            shown, _ = arranged(words, self.length, number)
            clean = _Prompt(shown, place, wrongs.choice([at for at in places if at != place]))
            unused = [word for word in words if word not in shown]
            changed = change(clean, spare.sample(unused, len(unused)))
            examples.append(
                Example(
                    clean=clean.filled,
                    corrupt=changed.filled.text,
                    answer=f" {shown[place + 1]}",
                    wrong=f" {shown[clean.other + 1]}",
                    clean_inputs=_inputs(clean),
                    corrupt_inputs=_inputs(changed),
                )
            )
        return plain_roles(asked.pairs(model, examples), examples[0].clean.words)

    def causal_model(self) -> CausalModel:
        """The place of the last word among those before, and the word after that place.

        Inputs are `words`, those before the last one, and `query`, the last one. `place` is where the query stands
        among the words, or None; the `answer` is the word behind it, or None.
        """
        return CausalModel(
            inputs=("words", "query"),
            variables={
                "place": Variable(("words", "query"), _place, "where the last word stood before"),
                "answer": Variable(("words", "place"), _follower, "the word that came after it"),
            },
            output="answer",
        )


def _inputs(prompt: _Prompt) -> dict[str, object]:
    return {"words": prompt.words, "query": prompt.words[prompt.place]}


def _place(words: tuple[str, ...], query: str) -> int | None:
    return words.index(query) if query in words else None


def _follower(words: tuple[str, ...], place: int | None) -> str | None:
    return None if place is None or place + 1 >= len(words) else words[place + 1]
