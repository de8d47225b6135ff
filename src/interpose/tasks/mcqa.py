"""Copying colours through a multiple-choice question (Wiegreffe et al. 2024, https://arxiv.org/abs/2407.15018).

Counterfactuals and causal model are those of the benchmark MIB (https://arxiv.org/abs/2504.13151); sentences, things
and colours are our own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import perm
from types import MappingProxyType
from typing import Any, NamedTuple

from interpose.errors import TaskError
from interpose.tasks._align import tokenizer_of
from interpose.tasks._drawing import Example, called, request
from interpose.tasks._roles import Filled, Span, fill
from interpose.tasks._words import arranged, plain_roles, single, single_of_split
from interpose.tasks.base import CausalModel, Pairs, Task, Tokenized, Variable

_KINDS = MappingProxyType(
    {
        "symbol": "the letters A to D become the digits 1 to 4, so neither letter is an answer (4 tokens differ)",
        "answer_position": "the right choice and the wrong one change places, so the right letter becomes the wrong "
        "one (2 tokens differ)",
        "random_letter": "the letters A to D become others; the right choice stays in its place (4 tokens differ)",
        "answer_position_random_letter": "both: the two choices change places, and the letters are others (6 tokens "
        "differ)",
    }
)
_SYMBOLS = "ABCD"
_DIGITS = "1234"
_OTHER_LETTERS = "EFGHJKLMNOPQRSTUVWXYZ"
_SENTENCES = MappingProxyType(
    {
        "train": (
            "Question: The {thing} is {color}. What color is the {again}?",
            "Question: Our {thing} is {color}. Which color does our {again} have?",
            "Question: My neighbor has a {color} {thing}. What color is the {again}?",
        ),
        "validation": (
            "Question: In the picture there is a {color} {thing}. Of what color is this {again}?",
            "Question: She was given a {color} {thing}. Name the color of the {again}.",
        ),
        "test": (
            "Question: Someone painted the {thing} {color}. What is the color of the {again} now?",
            "Question: They sell only one {thing}, and it is {color}. In which color do they sell the {again}?",
        ),
    }
)
_THINGS = MappingProxyType(
    {
        "train": "kettle chair scarf lamp bucket tent bench door carpet bicycle vase umbrella coat drawer ladder "
        "mailbox boat pillow notebook jacket",
        "validation": "basket curtain helmet piano suitcase teapot blanket wagon barrel sweater",
        "test": "gate sofa tractor bottle cup shelf kite towel bus pencil",
    }
)
_COLORS = MappingProxyType(
    {
        "train": "red blue green black white",
        "validation": "yellow purple gray silver tan",
        "test": "brown orange pink gold violet",
    }
)
_CHOICES = 4


class _Card(NamedTuple):
    """One question: its sentence, what it is about, and the choices with their symbols."""

    sentence: str
    thing: str
    color: str
    choices: tuple[str, ...]
    symbols: str


@dataclass(frozen=True)
class MCQA(Task):
    """Multiple choice: which of four letters stands before the color that the question has just named.

    "Question: The kettle is red. What color is the kettle? A. blue B. red C. green D. black Answer:", each choice on a
    line of its own, should go on with " B". Nothing has to be known: a model has to find the choice with the color and
    to say the letter in front of it. The answer is that letter and the wrong answer is the letter of another choice,
    each of the three as often as chance has it. The right choice stands in each of the four places equally often.

    Counterfactuals, always of the same sentence, thing and color:

    - `symbol` (the default): the letters become digits. Neither letter is in the prompt.
    - `answer_position`: the right choice and the wrong one change places. The right letter becomes the wrong one.
    - `random_letter`: the letters become others. The right choice stays in its place, its letter changes.
    - `answer_position_random_letter`: both.

    The splits `train`, `validation` and `test` share neither a sentence, nor a thing, nor a color. The letters are the
    same in all.
    """

    @property
    def counterfactuals(self) -> Mapping[str, str]:
        """The ways in which a prompt can be changed, each with what it does; the first is the default."""
        return _KINDS

    def pairs(
        self, model: Tokenized, n: int = 64, seed: int = 0, split: str = "train", counterfactual: str | None = None
    ) -> Pairs:
        """Draw counterfactual pairs; see `Task.pairs`.

        Returns:
            The pairs. Their `clean_inputs` and `corrupt_inputs` are inputs of `causal_model`. Their roles are
            `thing_last`, `color`, `correct_symbol`, `correct_symbol_period` (the token after it), `correct_choice`, the
            same for `wrong_symbol` and `wrong_choice`, and `end`.

        Raises:
            TaskError: if a name is unknown, n is out of range, or letters or colors are no single tokens.
        """
        asked = request(self, n, seed, split, counterfactual)
        tokenizer = tokenizer_of(model)
        colors = single_of_split(tokenizer, asked, "colors", _COLORS, _CHOICES)
        letters = _letters(tokenizer)
        # Neither of these is drawn with what draws the clean prompts, which are the same for every counterfactual.
        wrongs, spare = asked.random("wrong"), asked.random("spare")
        order = asked.random("clean")
        cells = [(sentence, place) for sentence in _SENTENCES[split] for place in range(_CHOICES)]
        order.shuffle(cells)
        things = _THINGS[split].split()
        each = len(things) * perm(len(colors), _CHOICES)
        examples = []
        for (sentence, place), number in asked.draw(cells, each, order):
            number, thing = divmod(number, len(things))
            choices, _ = arranged(colors, _CHOICES, number)
            clean = _Card(sentence, things[thing], choices[place], choices, _SYMBOLS)
            other = wrongs.choice([at for at in range(_CHOICES) if at != place])
            changed = _changed(asked.counterfactual, clean, (place, other), "".join(spare.sample(letters, _CHOICES)))
            examples.append(
                Example(
                    clean=_roles(_filled(clean), place, other),
                    corrupt=_filled(changed).text,
                    answer=f" {_SYMBOLS[place]}",
                    wrong=f" {_SYMBOLS[other]}",
                    clean_inputs=_inputs(clean),
                    corrupt_inputs=_inputs(changed),
                )
            )
        return plain_roles(asked.pairs(model, examples), examples[0].clean.words.keys() - {"thing"})

    def causal_model(self) -> CausalModel:
        """The place of the color among the choices, then the symbol at that place.

        Inputs are `color`, the four choices `choice0` to `choice3` and their symbols `symbol0` to `symbol3`.
        `answer_pointer` is the place, 0 to 3, or None where the color is no choice; `answer` is the symbol there. An
        `answer_pointer` taken from an `answer_position` counterfactual gives the wrong letter; one taken from
        `random_letter` leaves the answer as it is, while an `answer` taken from there is that prompt's own letter.
        The variables are those of the causal-variable track of MIB (https://arxiv.org/abs/2504.13151).

        Returns:
            The model; its output is `answer`.
        """
        choices = tuple(f"choice{place}" for place in range(_CHOICES))
        symbols = tuple(f"symbol{place}" for place in range(_CHOICES))
        return CausalModel(
            inputs=("color", *choices, *symbols),
            variables={
                "answer_pointer": Variable(("color", *choices), _pointer, "place of the color among the choices"),
                "answer": Variable(("answer_pointer", *symbols), _symbol, "the symbol at that place"),
            },
            output="answer",
        )


def _letters(tokenizer: Any) -> tuple[str, ...]:
    """The letters that may take the place of A to D.

    Raises:
        TaskError: A to D are no answers for this tokenizer.
    """
    answers = single(tokenizer, _SYMBOLS)
    if len(answers) < _CHOICES:
        raise TaskError(
            f"MCQA needs the letters {', '.join(_SYMBOLS)} as one token each with a leading space; the tokenizer "
            f"{called(tokenizer)} has {', '.join(answers) or 'none'} of them. Use another model, or give your own "
            "prompts to ip.pairs()."
        )
    return tuple(_OTHER_LETTERS)


def _changed(kind: str, card: _Card, places: tuple[int, int], letters: str) -> _Card:
    choices = list(card.choices)
    if kind.startswith("answer_position"):
        here, there = places
        choices[here], choices[there] = choices[there], choices[here]
    symbols = {"symbol": _DIGITS, "answer_position": card.symbols}.get(kind, letters)
    return card._replace(choices=tuple(choices), symbols=symbols)


def _filled(card: _Card) -> Filled:
    lines = [f"{{symbol{place}}}. {{choice{place}}}" for place in range(_CHOICES)]
    template = "\n".join([card.sentence, *lines, "Answer:"])
    return fill(template, thing=card.thing, again=card.thing, **_inputs(card))


def _roles(prompt: Filled, place: int, other: int) -> Filled:
    """The prompt with its words called by what they are for the answer."""
    words = {"thing": prompt.words["thing"], "color": prompt.words["color"]}
    for name, at in (("correct", place), ("wrong", other)):
        symbol = prompt.words[f"symbol{at}"]
        words[f"{name}_symbol"] = symbol
        words[f"{name}_symbol_period"] = Span(symbol.end, symbol.end + 1)
        words[f"{name}_choice"] = prompt.words[f"choice{at}"]
    return Filled(prompt.text, words)


def _inputs(card: _Card) -> dict[str, str]:
    """A question as the causal model sees it."""
    choices = {f"choice{place}": choice for place, choice in enumerate(card.choices)}
    return {"color": card.color, **choices, **{f"symbol{place}": sign for place, sign in enumerate(card.symbols)}}


def _pointer(color: str, *choices: str) -> int | None:
    return choices.index(color) if color in choices else None


def _symbol(pointer: int | None, *symbols: str) -> str | None:
    return None if pointer is None else symbols[pointer]
