"""Sorting two numbers: which one comes first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import NamedTuple

import torch

from interpose.errors import TaskError
from interpose.tasks._plain_words import check_choice, known_words
from interpose.tasks.base import SPLITS, CausalModel, Pairs, Task, Tokenized, Variable, pairs

LARGEST = 30
"""Numbers are 1 to this one; those of clean prompts leave room for smaller and for larger ones."""


class _Prompt(NamedTuple):
    """The two numbers, in the order in which they are said."""

    first: int
    second: int

    @property
    def text(self) -> str:
        return f"sort {self.first} {self.second} :"


class _Counterfactual(NamedTuple):
    meaning: str
    change: Callable[[_Prompt, Random], _Prompt]


def _both_smaller(prompt: _Prompt, random: Random) -> _Prompt:
    return _Prompt(*random.sample(range(1, min(prompt)), 2))


def _raised(prompt: _Prompt, random: Random) -> _Prompt:
    above = random.randint(max(prompt) + 1, LARGEST)
    return prompt._replace(**{"first" if prompt.first < prompt.second else "second": above})


_COUNTERFACTUALS: Mapping[str, _Counterfactual] = MappingProxyType(
    {
        "both_smaller": _Counterfactual(
            "both numbers become smaller than either was, so neither answer is there (2 tokens differ)", _both_smaller
        ),
        "raised": _Counterfactual(
            "the smaller number becomes the larger one, so the wrong answer becomes the right one (1 token differs)",
            _raised,
        ),
        "swapped": _Counterfactual(
            "the two numbers change places; the answer stays (2 tokens differ)",
            lambda prompt, _: _Prompt(prompt.second, prompt.first),
        ),
    }
)


@dataclass(frozen=True)
class Sorting(Task):
    """Sorting two numbers: which one comes first.

    "sort 7 3 :" should go on with " 3", the smaller of the two, with which the sorted list begins. The numbers are 3 to
    29, and never equal. The wrong answer is the other number.

    Counterfactuals:

    - `both_smaller` (the default): both numbers become smaller than either was. With either number taken from there,
      the answer is another one.
    - `raised`: the smaller number becomes the larger one. The wrong answer becomes the right one.
    - `swapped`: the two numbers change places. The answer stays, its place changes.

    The splits `train`, `validation` and `test` share no pair of numbers, in whatever order; a counterfactual may be any
    pair.
    """

    @property
    def counterfactuals(self) -> Mapping[str, str]:
        """The ways in which a prompt can be changed, each with what it does; the first is the default."""
        return {name: entry.meaning for name, entry in _COUNTERFACTUALS.items()}

    def pairs(
        self, model: Tokenized, n: int = 64, seed: int = 0, split: str = "train", counterfactual: str | None = None
    ) -> Pairs:
        """Draw counterfactual pairs; see `Task.pairs`.

        Returns:
            The pairs. Their `clean_inputs` and `corrupt_inputs` are inputs of `causal_model`. Roles: `first` and
            `second`, the places of the numbers; `last`.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer has not all numbers as one token.
        """
        counterfactual = counterfactual or next(iter(_COUNTERFACTUALS))
        check_choice("Sorting", "split", split, SPLITS)
        check_choice("Sorting", "counterfactual", counterfactual, tuple(_COUNTERFACTUALS))
        known_words("Sorting", model, [str(number) for number in range(1, LARGEST + 1)], LARGEST)
        every = material(split)
        if not 1 <= n <= len(every):
            raise TaskError(
                f"Sorting was asked for n={n} pairs. Split {split!r} has {len(every)} distinct prompts: write an n "
                f"from 1 to {len(every)}."
            )
        clean = [_Prompt(*each) for each in Random(f"sorting clean {seed} {split} {n}").sample(every, n)]
        # A generator of its own for the replacements, so that every counterfactual has the same clean prompts.
        spare, change = Random(f"sorting spare {seed} {split} {n}"), _COUNTERFACTUALS[counterfactual].change
        corrupt = [change(prompt, spare) for prompt in clean]
        made = pairs(
            model,
            clean=[prompt.text for prompt in clean],
            corrupt=[prompt.text for prompt in corrupt],
            answers=[f" {min(prompt)}" for prompt in clean],
            wrong=[f" {max(prompt)}" for prompt in clean],
        )
        return replace(
            made,
            info={"task": "sorting", "counterfactual": counterfactual, "split": split, "seed": seed, "n": n},
            clean_inputs=tuple(prompt._asdict() for prompt in clean),
            corrupt_inputs=tuple(prompt._asdict() for prompt in corrupt),
            roles={role: torch.full((n,), at) for role, at in (("first", -3), ("second", -2), ("last", -1))},
        )

    def causal_model(self) -> CausalModel:
        """Which of the two is the smaller one, and that one.

        Inputs are `first` and `second`. `place` is 0 where the first number is the smaller one, else 1; the `answer` is
        the number at that place.
        """
        return CausalModel(
            inputs=("first", "second"),
            variables={
                "place": Variable(("first", "second"), lambda first, second: int(first > second), "of the smaller one"),
                "answer": Variable(
                    ("place", "first", "second"), lambda place, *both: both[place], "the number at that place"
                ),
            },
            output="answer",
        )


def material(split: str) -> list[tuple[int, int]]:
    """The pairs of numbers of a split, in both orders: four of six for training, one for each other split."""
    share = {"train": (0, 1, 3, 4), "validation": (2,), "test": (5,)}[split]
    pairs = [(low, high) for low in range(3, LARGEST) for high in range(low + 1, LARGEST)]
    return [both for i, (low, high) in enumerate(pairs) if i % 6 in share for both in ((low, high), (high, low))]
