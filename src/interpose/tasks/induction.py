"""Induction: what came after a word the last time comes after it again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import NamedTuple

import torch

from interpose.errors import TaskError
from interpose.tasks._plain_words import WORDS, check_choice, draw, known_words
from interpose.tasks.base import SPLITS, CausalModel, Pairs, Task, Tokenized, Variable, pairs


class _Prompt(NamedTuple):
    """The words that stand there first, and which of them is repeated at the end."""

    words: tuple[str, ...]
    place: int
    other: int

    @property
    def text(self) -> str:
        return " ".join([*self.words, self.words[self.place]])


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
            The pairs. Their `clean_inputs` and `corrupt_inputs` are inputs of `causal_model`. Roles: `earlier`, the
            place where the last word stood before; `follower`, the place after it; `last`.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer has too few of the words as one token.
        """
        counterfactual = counterfactual or next(iter(_COUNTERFACTUALS))
        check_choice("Induction", "split", split, SPLITS)
        check_choice("Induction", "counterfactual", counterfactual, tuple(_COUNTERFACTUALS))
        words = known_words("Induction", model, WORDS[split], 2 * self.length)
        clean = draw("Induction", n, Random(f"induction clean {seed} {split} {n}"), lambda r: self._prompt(words, r))
        # A generator of its own for the replacements, so that every counterfactual has the same clean prompts.
        spare, change = Random(f"induction spare {seed} {split} {n}"), _COUNTERFACTUALS[counterfactual].change
        corrupt = []
        for prompt in clean:
            unused = [word for word in words if word not in prompt.words]
            corrupt.append(change(prompt, spare.sample(unused, len(unused))))
        made = pairs(
            model,
            clean=[prompt.text for prompt in clean],
            corrupt=[prompt.text for prompt in corrupt],
            answers=[f" {prompt.words[prompt.place + 1]}" for prompt in clean],
            wrong=[f" {prompt.words[prompt.other + 1]}" for prompt in clean],
        )
        places = torch.tensor([prompt.place for prompt in clean]) - self.length - 1
        return replace(
            made,
            info={
                "task": "induction",
                "counterfactual": counterfactual,
                "split": split,
                "seed": seed,
                "n": n,
                "length": self.length,
            },
            clean_inputs=tuple(map(_inputs, clean)),
            corrupt_inputs=tuple(map(_inputs, corrupt)),
            roles={"earlier": places, "follower": places + 1, "last": torch.full_like(places, -1)},
        )

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

    def _prompt(self, words: tuple[str, ...], random: Random) -> _Prompt:
        place, other = random.sample(range(1, self.length - 1), 2)
        return _Prompt(tuple(random.sample(words, self.length)), place, other)


def _inputs(prompt: _Prompt) -> dict[str, object]:
    return {"words": prompt.words, "query": prompt.words[prompt.place]}


def _place(words: tuple[str, ...], query: str) -> int | None:
    return words.index(query) if query in words else None


def _follower(words: tuple[str, ...], place: int | None) -> str | None:
    return None if place is None or place + 1 >= len(words) else words[place + 1]
