"""Comparison: two options and two letters; the first option if the letters are the same, the second if not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import perm
from random import Random
from types import MappingProxyType
from typing import NamedTuple

from interpose.tasks._align import tokenizer_of
from interpose.tasks._drawing import Example, request
from interpose.tasks._roles import Filled, spoken
from interpose.tasks._words import arranged, plain_roles, single_of_split
from interpose.tasks.base import CausalModel, Pairs, Task, Tokenized, Variable

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "train": "apple bread cheese fish honey lemon milk rice salt tea",
        "validation": "bean cake corn egg meat nut oil pear",
        "test": "beer butter coffee cream fruit orange soup wine",
    }
)
"""The options of each split: no two splits share one."""
LETTERS: Mapping[str, str] = MappingProxyType(
    {"train": "A D G J M P S V Y B", "validation": "C F I L O R U X", "test": "E H K N Q T W Z"}
)
"""The letters of each split: no two splits share one."""
_FEWEST = 4  # two in the prompt and two to replace them


class _Prompt(NamedTuple):
    first: str
    second: str
    left: str
    right: str

    @property
    def filled(self) -> Filled:
        return spoken(self, first=0, second=1, left=2, right=3)

    @property
    def chosen(self) -> tuple[str, str]:
        """The right option and the other one."""
        return (self.first, self.second) if self.left == self.right else (self.second, self.first)


class _Spare(NamedTuple):
    """Options and letters that are not in a prompt."""

    options: list[str]
    letters: list[str]


class _Counterfactual(NamedTuple):
    meaning: str
    change: Callable[[_Prompt, _Spare], _Prompt]


def _other_prompt(prompt: _Prompt, spare: _Spare) -> _Prompt:
    (one, other), (left, right) = spare.options[:2], spare.letters[:2]
    return _Prompt(one, other, left, right if prompt.left == prompt.right else left)


def _other_letter(prompt: _Prompt, spare: _Spare) -> _Prompt:
    return prompt._replace(left=spare.letters[0] if prompt.left == prompt.right else prompt.right)


_COUNTERFACTUALS: Mapping[str, _Counterfactual] = MappingProxyType(
    {
        "other_prompt": _Counterfactual(
            "other options and other letters, the same where they differed and the other way round (4 tokens differ)",
            _other_prompt,
        ),
        "other_letter": _Counterfactual(
            "the left letter changes, so that the wrong option becomes the right one (1 token differs)", _other_letter
        ),
        "other_options": _Counterfactual(
            "both options become other ones, so neither answer is in the prompt (2 tokens differ)",
            lambda prompt, spare: prompt._replace(first=spare.options[0], second=spare.options[1]),
        ),
    }
)


@dataclass(frozen=True)
class Comparison(Task):
    """Comparison: choose by whether two letters are the same.

    "milk bread K K" should go on with " milk", the first option, since the letters are the same; "milk bread K T" with
    " bread". A model has to compare the letters, and to say the option that stands in the place which that asks for.

    The wrong answer is the other option. In half of the prompts the letters are the same.

    Counterfactuals:

    - `other_prompt` (the default): other options and other letters; where the letters were the same they differ now,
      and the other way round.
    - `other_letter`: the left letter changes, and with it whether they are the same. The wrong answer becomes right.
    - `other_options`: both options become other ones.

    The splits `train`, `validation` and `test` share neither an option nor a letter.
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
            The pairs. Their `clean_inputs` and `corrupt_inputs` are inputs of `causal_model`. Their roles are the four
            words, `first`, `second`, `left` and `right`, and `end`, the place of the last of them.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer has too few of the words as one token.
        """
        asked = request(self, n, seed, split, counterfactual)
        tokenizer = tokenizer_of(model)
        options = single_of_split(tokenizer, asked, "options", OPTIONS, _FEWEST, alone=True)
        letters = single_of_split(tokenizer, asked, "letters", LETTERS, _FEWEST)
        rights, spare, order = asked.random("right"), asked.random("spare"), asked.random("clean")
        change = _COUNTERFACTUALS[asked.counterfactual].change
        examples = []
        # The right letter is no part of what a number stands for: else there were more that differ than are the same.
        for same, number in asked.draw(order.sample((True, False), 2), perm(len(options), 2) * len(letters), order):
            (first, second), at = arranged(options, 2, number)
            other = rights.choice([letter for letter in letters if letter != letters[at]])
            clean = _Prompt(first, second, letters[at], letters[at] if same else other)
            changed = change(clean, _unused(clean, options, letters, spare))
            right, wrong = clean.chosen
            examples.append(
                Example(
                    clean=clean.filled,
                    corrupt=changed.filled.text,
                    answer=f" {right}",
                    wrong=f" {wrong}",
                    clean_inputs=clean._asdict(),
                    corrupt_inputs=changed._asdict(),
                )
            )
        return plain_roles(asked.pairs(model, examples), examples[0].clean.words)

    def causal_model(self) -> CausalModel:
        """Whether the letters are the same, and the option that this asks for.

        Inputs are the four words, `first`, `second`, `left` and `right`. `same` is whether the letters are the same;
        the `choice` is the first option if they are, and else the second.
        """
        return CausalModel(
            inputs=_Prompt._fields,
            variables={
                "same": Variable(("left", "right"), lambda left, right: left == right, "whether the letters are equal"),
                "choice": Variable(
                    ("same", "first", "second"),
                    lambda same, first, second: first if same else second,
                    "the option that is asked for",
                ),
            },
            output="choice",
        )


def _unused(prompt: _Prompt, options: tuple[str, ...], letters: tuple[str, ...], random: Random) -> _Spare:
    left = [word for word in options if word not in prompt], [word for word in letters if word not in prompt]
    return _Spare(*(random.sample(words, len(words)) for words in left))
