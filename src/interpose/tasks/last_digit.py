"""Last digit: the last digit of the sum of two digits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import NamedTuple

import torch

from interpose.tasks._words import check_choice, draw, known_words
from interpose.tasks.base import SPLITS, CausalModel, Pairs, Task, Tokenized, Variable, pairs

NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("Adam", "Anna", "Ben", "Carl", "Clara", "David", "Emma", "Frank", "George", "Helen"),
        "validation": ("Henry", "Jack", "James", "Jane", "John", "Julia", "Kate", "Laura"),
        "test": ("Linda", "Lucy", "Maria", "Mark", "Mary", "Paul", "Peter", "Susan"),
    }
)
"""The names of each split: no two splits share one."""
_TEXT = "{name} adds {left} and {right} and the last digit is"
WORDS = tuple(word for word in _TEXT.split() if "{" not in word)
"""The words of every prompt, in order."""


class _Sum(NamedTuple):
    name: str
    left: int
    right: int

    @property
    def text(self) -> str:
        return _TEXT.format(**self._asdict())

    @property
    def digit(self) -> int:
        return (self.left + self.right) % 10


class _Counterfactual(NamedTuple):
    meaning: str
    change: Callable[[_Sum, Random], _Sum]


def _another(digit: int, random: Random) -> int:
    return (digit + random.randrange(1, 10)) % 10


def _both(sum_: _Sum, random: Random) -> _Sum:
    left = _another(sum_.left, random)
    fit = [digit for digit in range(10) if digit != sum_.right and (left + digit) % 10 != sum_.digit]
    return sum_._replace(left=left, right=random.choice(fit))


_COUNTERFACTUALS: Mapping[str, _Counterfactual] = MappingProxyType(
    {
        "other_digits": _Counterfactual(
            "both digits change, and their sum ends in another one (2 tokens differ)", _both
        ),
        "other_left": _Counterfactual(
            "the left digit changes (1 token differs)",
            lambda sum_, random: sum_._replace(left=_another(sum_.left, random)),
        ),
        "other_right": _Counterfactual(
            "the right digit changes (1 token differs)",
            lambda sum_, random: sum_._replace(right=_another(sum_.right, random)),
        ),
    }
)


@dataclass(frozen=True)
class LastDigit(Task):
    """The last digit of a sum: "Kate adds 7 and 5 and the last digit is" should go on with " 2".

    A model has to bring both digits to the end and to add them modulo ten. The answer is the last digit of the sum; the
    wrong answer is that of the counterfactual's sum.

    Counterfactuals:

    - `other_digits` (the default): both digits change.
    - `other_left`, `other_right`: one of them does.

    The splits `train`, `validation` and `test` share neither a name nor a pair of digits: of the hundred pairs
    they have 50, 25 and 25.
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
            The pairs. Their `clean_inputs` and `corrupt_inputs` are inputs of `causal_model`. Roles: `left` and
            `right`, the digits, and `last`.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer has a digit that is not one token.
        """
        counterfactual = counterfactual or next(iter(_COUNTERFACTUALS))
        check_choice("LastDigit", "split", split, SPLITS)
        check_choice("LastDigit", "counterfactual", counterfactual, tuple(_COUNTERFACTUALS))
        known_words("LastDigit", model, tuple("0123456789"), 10)
        names = known_words("LastDigit", model, NAMES[split], 2)
        clean = draw("LastDigit", n, Random(f"last digit clean {seed} {split} {n}"), lambda r: _drawn(names, split, r))
        # A generator of its own for the changes, so that every counterfactual has the same clean prompts.
        spare, change = Random(f"last digit spare {seed} {split} {n}"), _COUNTERFACTUALS[counterfactual].change
        corrupt = [change(sum_, spare) for sum_ in clean]
        made = pairs(
            model,
            clean=[sum_.text for sum_ in clean],
            corrupt=[sum_.text for sum_ in corrupt],
            answers=[f" {sum_.digit}" for sum_ in clean],
            wrong=[f" {sum_.digit}" for sum_ in corrupt],
        )
        last = torch.full((n,), -1)
        return replace(
            made,
            info={"task": "last-digit", "counterfactual": counterfactual, "split": split, "seed": seed, "n": n},
            clean_inputs=tuple({"left": sum_.left, "right": sum_.right} for sum_ in clean),
            corrupt_inputs=tuple({"left": sum_.left, "right": sum_.right} for sum_ in corrupt),
            roles={"left": last - 7, "right": last - 5, "last": last},
        )

    def causal_model(self) -> CausalModel:
        """Both digits are brought together and added.

        Inputs are the digits, `left` and `right`. `augend` and `addend` are what is brought to the end of each; the
        `digit` is the last one of their sum.
        """
        return CausalModel(
            inputs=("left", "right"),
            variables={
                "augend": Variable(("left",), lambda left: left, "the left digit, brought to the end"),
                "addend": Variable(("right",), lambda right: right, "the right digit, brought to the end"),
                "digit": Variable(("augend", "addend"), lambda one, other: (one + other) % 10, "the last digit"),
            },
            output="digit",
        )


def _drawn(names: tuple[str, ...], split: str, random: Random) -> _Sum:
    found = _Sum(random.choice(names), random.randrange(10), random.randrange(10))
    while _split(found.left, found.right) != split:
        found = found._replace(left=random.randrange(10), right=random.randrange(10))
    return found


def _split(left: int, right: int) -> str:
    """Which split a pair of digits is in: each has every last digit equally often, and every digit on both sides."""
    digit = (left + right) % 10
    rank = (left + 3 * digit + digit // 5) % 10
    if rank % 2 == 0:
        return "train"
    return "validation" if rank in (1, 5) or (rank == 9 and digit % 2 == 0) else "test"
