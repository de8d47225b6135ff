"""Sorting two numbers: which one comes first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import NamedTuple

from interpose.tasks._align import tokenizer_of
from interpose.tasks._drawing import Example, request
from interpose.tasks._roles import Filled, spoken
from interpose.tasks._words import plain_roles, single_of_split
from interpose.tasks.base import SPLITS, CausalModel, Pairs, Task, Tokenized, Variable

LARGEST = 30
"""Numbers are 1 to this one; those of clean prompts leave room for smaller and for larger ones."""
_NUMBERS = " ".join(map(str, range(1, LARGEST + 1)))


class _Prompt(NamedTuple):
    """The two numbers, in the order in which they are said."""

    first: int
    second: int

    @property
    def filled(self) -> Filled:
        return spoken(["sort", str(self.first), str(self.second), ":"], first=1, second=2)


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
    29, and never equal. The wrong answer is the other number. In half of the prompts the smaller one is said first.

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
            The pairs. Their `clean_inputs` and `corrupt_inputs` are inputs of `causal_model`. Their roles are `first`
            and `second`, the numbers, and `end`.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer has not all numbers as one token.
        """
        asked = request(self, n, seed, split, counterfactual)
        single_of_split(tokenizer_of(model), asked, "numbers", dict.fromkeys(SPLITS, _NUMBERS), LARGEST)
        spare, order, numbers = asked.random("spare"), asked.random("clean"), material(split)
        change = _COUNTERFACTUALS[asked.counterfactual].change
        examples = []
        for falling, number in asked.draw(order.sample((False, True), 2), len(numbers), order):
            clean = _Prompt(*sorted(numbers[number], reverse=falling))
            changed = change(clean, spare)
            examples.append(
                Example(
                    clean=clean.filled,
                    corrupt=changed.filled.text,
                    answer=f" {min(clean)}",
                    wrong=f" {max(clean)}",
                    clean_inputs=clean._asdict(),
                    corrupt_inputs=changed._asdict(),
                )
            )
        return plain_roles(asked.pairs(model, examples), examples[0].clean.words)

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
    """The pairs of numbers of a split, the smaller one first: four of six for training, one for each other split."""
    share = {"train": (0, 1, 3, 4), "validation": (2,), "test": (5,)}[split]
    pairs = [(low, high) for low in range(3, LARGEST) for high in range(low + 1, LARGEST)]
    return [pair for i, pair in enumerate(pairs) if i % 6 in share]
