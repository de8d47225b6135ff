"""Sums and differences of two-digit numbers, with the carry as a variable; the task of MIB's arithmetic track.

MIB: https://arxiv.org/abs/2504.13151. Formats and worked examples are interpose's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from random import Random
from types import MappingProxyType
from typing import Any, NamedTuple

from interpose.errors import TaskError
from interpose.tasks._align import is_one_token, pieces, tokenizer_of
from interpose.tasks._drawing import Example, called, request
from interpose.tasks._roles import Filled, fill
from interpose.tasks.base import CausalModel, Pairs, Task, Tokenized, Variable

_KINDS = MappingProxyType(
    {
        "random": "both numbers become others, so the result becomes another",
        "ones_carry": "the ones digits become others, so that what they carry changes and the tens stay",
    }
)
_OPERATIONS = MappingProxyType({"addition": ("+", "plus"), "subtraction": ("-", "minus")})
# A line of a prompt up to its result, and what stands between two lines.
_FORMATS = MappingProxyType(
    {
        "train": (
            ("{a} {sign} {b} =", ", "),
            ("{a} {word} {b} is", ". "),
            ("{a} {word} {b} equals", "; "),
            ("Q: What is {a} {word} {b}? A:", "\n"),
        ),
        "validation": (("{a} {sign} {b} gives", ", "), ("The result of {a} {word} {b} is", ". ")),
        "test": (("{a} {word} {b} comes to", ". "), ("Exercise: {a} {sign} {b}. Solution:", "\n")),
    }
)
# Results and second numbers of the two worked examples before each question: one carries and one does not.
_WORKED = MappingProxyType(
    {"train": ((21, 34), (46, 27)), "validation": ((13, 52), (38, 26)), "test": ((42, 15), (29, 34))}
)


class _Sum(NamedTuple):
    """What is asked: two numbers and how they are joined."""

    a: int
    b: int
    operation: str

    @property
    def result(self) -> int:
        return self.a + self.b if self.operation == "addition" else self.a - self.b

    @property
    def tens(self) -> tuple[int, int]:
        return self.a // 10, self.b // 10

    @property
    def carries(self) -> bool:
        """Whether the ones digits carry to the tens, or borrow from them."""
        ones = self.a % 10, self.b % 10
        return sum(ones) > 9 if self.operation == "addition" else ones[0] < ones[1]


class _Style(NamedTuple):
    """How a tokenizer writes a result after a word: what stands before its first token, and that token's digits."""

    before: str
    digits: int

    def answer(self, result: int) -> str:
        return ("" if self.before else " ") + str(result)[: self.digits]


@dataclass(frozen=True)
class Arithmetic(Task):
    """Arithmetic: the sum, or the difference, of two numbers with two digits.

    "21 + 34 = 55, 46 + 27 = 73, 38 + 14 =" should go on with 52. Two worked examples come first, since small models
    need to be shown what is asked. Numbers and results have two digits.

    The answer is the first token of the result: all of it where a tokenizer has two-digit numbers as one token (GPT-2,
    Llama 3), its first digit where each digit is a token of its own (SmolLM2, Qwen2.5, Gemma). The first digit needs
    the carry too. Where the space before a number is a token of its own, it ends the prompt. The wrong answer is the
    first token of the corrupt prompt's result, as in MIB; the two are never the same.

    Counterfactuals, always with the same worked examples and in the same format:

    - `random` (the default): both numbers become others.
    - `ones_carry`: the ones digits become others, so that what they carry changes: 38 + 14 becomes 31 + 13. The tens
      digits stay, so the results' tens digits are one apart. To be right, a model has to carry.

    Token roles: `a` and `b`, the two numbers that are asked about, each with `_last`, and with `_first` where it is
    several tokens; and `end`.

    The splits `train`, `validation` and `test` share no format, no worked example and no question.

    Attributes:
        operation: "addition" or "subtraction".
    """

    operation: str = "addition"

    def __post_init__(self) -> None:
        if self.operation not in _OPERATIONS:
            known = " or ".join(f"{name!r}" for name in _OPERATIONS)
            raise TaskError(f"Arithmetic(operation={self.operation!r}) is not possible; expected {known}.")

    @property
    def counterfactuals(self) -> Mapping[str, str]:
        """The ways in which a prompt can be changed, each with what it does; the first is the default."""
        return dict(_KINDS)

    def pairs(
        self, model: Tokenized, n: int = 64, seed: int = 0, split: str = "train", counterfactual: str | None = None
    ) -> Pairs:
        """Draw counterfactual pairs; see `Task.pairs`.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer writes numbers in several ways.
        """
        asked = request(self, n, seed, split, counterfactual)
        style, pool = _style(tokenizer_of(model)), _Pool(self.operation, split)
        random, spare = asked.random(f"{self.operation} clean"), asked.random(f"{self.operation} spare")
        examples = []
        cells = random.sample(_FORMATS[split], len(_FORMATS[split]))
        for (line, between), number in asked.draw(cells, len(pool.questions), random):
            question = pool.questions[number]
            changed = pool.change(asked.counterfactual, question, style, spare)
            worked = [_Sum(*pair, self.operation) for pair in _worked(self.operation, split)]
            before = "".join(f"{_fill(line, one).text} {one.result}{between}" for one in worked)
            examples.append(
                Example(
                    clean=_fill(line, question, before, style.before),
                    corrupt=_fill(line, changed, before, style.before).text,
                    answer=style.answer(question.result),
                    wrong=style.answer(changed.result),
                    clean_inputs=_inputs(question, style),
                    corrupt_inputs=_inputs(changed, style),
                )
            )
        return asked.pairs(model, examples)

    def causal_model(self) -> CausalModel:
        """Digit by digit, with what the ones carry to the tens (or borrow from them) as a variable of its own.

        Inputs are the digits `tens_a`, `ones_a`, `tens_b`, `ones_b`, and `shown`, how many digits the answer's token
        has. The output `answer` is the token's digits as text. Exchanging `ones_carry` with a `ones_carry`
        counterfactual changes the tens digit and leaves the ones digit.

        Returns:
            The model of this task's operation.
        """
        sign = 1 if self.operation == "addition" else -1
        return CausalModel(
            inputs=("tens_a", "ones_a", "tens_b", "ones_b", "shown"),
            variables={
                "ones_carry": Variable(
                    ("ones_a", "ones_b"),
                    lambda a, b: (a + sign * b) // 10,
                    "what goes from the ones to the tens: -1, 0, 1",
                ),
                "ones": Variable(("ones_a", "ones_b"), lambda a, b: (a + sign * b) % 10, "the result's last digit"),
                "tens": Variable(
                    ("tens_a", "tens_b", "ones_carry"),
                    lambda a, b, carry: a + sign * b + carry,
                    "the result's first digit",
                ),
                "answer": Variable(
                    ("tens", "ones", "shown"),
                    lambda tens, ones, shown: str(10 * tens + ones)[:shown],
                    "the digits of the result's first token",
                ),
            },
            output="answer",
        )


class _Pool:
    """All that can be asked in a split, and the same by tens digits."""

    def __init__(self, operation: str, split: str) -> None:
        """Results keep two digits, whatever the ones carry; worked examples are left out."""
        sign = 1 if operation == "addition" else -1
        worked = {pair for part in _WORKED for pair in _worked(operation, part)}
        every = [
            _Sum(a, b, operation)
            for a, b in product(range(10, 100), repeat=2)
            if 2 <= a // 10 + sign * (b // 10) <= 8 and (a, b) not in worked
        ]
        Random(f"arithmetic splits of {operation}").shuffle(every)
        quarters = {"train": (0, 1), "validation": (2,), "test": (3,)}[split]
        self.questions = [question for quarter in quarters for question in every[quarter::4]]
        self.by_tens: dict[tuple[int, int], list[_Sum]] = {}
        for question in self.questions:
            self.by_tens.setdefault(question.tens, []).append(question)

    def change(self, kind: str, question: _Sum, style: _Style, random: Random) -> _Sum:
        """Another question of the same split, with another first token of its result."""
        if kind == "ones_carry":
            same = self.by_tens[question.tens]
            return random.choice([other for other in same if other.carries != question.carries])
        while True:
            other = random.choice(self.questions)
            if style.answer(other.result) != style.answer(question.result):
                return other


def _worked(operation: str, split: str) -> tuple[tuple[int, int], ...]:
    """The worked examples of a split; a difference undoes its sum."""
    pairs = _WORKED[split]
    return pairs if operation == "addition" else tuple((a + b, b) for a, b in pairs)


def _fill(line: str, question: _Sum, before: str = "", after: str = "") -> Filled:
    sign, word = _OPERATIONS[question.operation]
    numbers = {"a": str(question.a), "b": str(question.b)}
    filled = fill("{before}" + line + "{after}", before=before, sign=sign, word=word, after=after, **numbers)
    return Filled(filled.text, {name: filled.words[name] for name in numbers})


def _inputs(question: _Sum, style: _Style) -> dict[str, int]:
    (tens_a, ones_a), (tens_b, ones_b) = divmod(question.a, 10), divmod(question.b, 10)
    return {"tens_a": tens_a, "ones_a": ones_a, "tens_b": tens_b, "ones_b": ones_b, "shown": style.digits}


def _style(tokenizer: Any) -> _Style:
    """How all numbers with two digits are written; one way for all of them, or prompts would not align."""
    numbers = [str(number) for number in range(10, 100)]
    spaced, bare = pieces(tokenizer, [f" {number}" for number in numbers]), pieces(tokenizer, numbers)
    if all(is_one_token(tokenizer, ids) for ids in spaced):
        return _Style("", 2)
    (space,), digits = pieces(tokenizer, [" "]), pieces(tokenizer, list("0123456789"))
    if spaced == [[*space, *ids] for ids in bare]:
        if all(is_one_token(tokenizer, ids) for ids in bare):
            return _Style(" ", 2)
        apart = [[*digits[int(tens)], *digits[int(ones)]] for tens, ones in numbers]
        if bare == apart and all(is_one_token(tokenizer, ids) for ids in digits):
            return _Style(" ", 1)
    counts = sorted({len(ids) for ids in spaced})
    raise TaskError(
        "Arithmetic needs all numbers with two digits written alike: as one token, or each digit as one. The tokenizer "
        f"{called(tokenizer)} writes them with {' or '.join(map(str, counts))} tokens. Use a model that treats numbers "
        "alike, or give your own prompts to ip.pairs(...)."
    )
