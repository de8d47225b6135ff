"""Subject-verb agreement over a distracting phrase (Linzen et al. 2016, https://arxiv.org/abs/1611.01368)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple

from interpose.errors import TaskError
from interpose.tasks._align import is_one_token, pieces, tokenizer_of
from interpose.tasks._drawing import Example, called, request
from interpose.tasks._roles import Filled, fill
from interpose.tasks.base import CausalModel, Pairs, Task, Tokenized, Variable

_FEWEST_NOUNS = 8
_NUMBERS = ("singular", "plural")
_VERBS = (("is", "are"), ("was", "were"), ("has", "have"))
_DISTRACTORS = ("agrees", "differs")
_KINDS = MappingProxyType(
    {
        "subject_number": "the subject changes its number, so the right verb becomes the wrong one (1 token differs)",
        "attractor_number": "the other noun changes its number; the answer stays (1 token differs)",
        "both_numbers": "both nouns change their number, so the answer changes (2 tokens differ)",
        "other_subject": "the subject becomes another noun of the same number; the answer stays (1 token differs)",
    }
)
_TEMPLATES = MappingProxyType(
    {
        "train": (
            "The {subject} near the {attractor}",
            "We all know that the {subject} behind the {attractor}",
            "It turned out that the {subject} next to the {attractor}",
            "According to the guide, the {subject} above the {attractor}",
            "Nobody can say why the {subject} beside the {attractor}",
            "The {subject} that stood in front of the {attractor} last year",
            "I do not think that the {subject} below the {attractor}",
            "On this map, the {subject} to the left of the {attractor}",
        ),
        "validation": (
            "The {subject} opposite the {attractor}",
            "Everybody agrees that the {subject} close to the {attractor}",
            "As you can see, the {subject} around the {attractor}",
            "My neighbour told me that the {subject} beyond the {attractor}",
        ),
        "test": (
            "The {subject} under the {attractor}",
            "They asked whether the {subject} across from the {attractor}",
            "In this town, the {subject} between the canal and the {attractor}",
            "The report says that the {subject} right by the {attractor}",
        ),
    }
)
# Nouns whose plural only adds an s, so that both forms are often one token.
_WRITTEN_NOUNS = MappingProxyType(
    {
        "train": "book, door, house, tree, car, horse, window, table, chair, boat, garden, tower, flower, painting, "
        "statue, wall, hill, lamp, letter, picture, road, school, shop, stone, wheel, bird, dog, farm, field, "
        "machine, island, ship, bell, fence, clock, bottle, bag, guard, teacher, doctor, artist",
        "validation": "bridge, train, street, castle, cow, mirror, bed, basket, barn, cat, engine, gate, hotel, desk, "
        "village, pool, worker, driver, student, visitor",
        "test": "king, park, plant, pond, rock, room, sign, station, star, temple, tent, building, camera, screen, "
        "truck, writer, player, soldier, farmer, friend",
    }
)


class _Noun(NamedTuple):
    word: str
    number: str

    def __str__(self) -> str:
        return self.word + "s" * (self.number == "plural")

    def flipped(self) -> "_Noun":
        return _Noun(self.word, _other(self.number))


@dataclass(frozen=True)
class SubjectVerb(Task):
    """Subject-verb agreement: a verb has the number of its subject, not of the noun that stands nearer.

    "The keys near the cabinet" should go on with " are", not " is". Between the subject and the verb stands a phrase
    with a second noun, the attractor, which agrees with the subject in half of the prompts and differs in the others.

    The answer is one of " is", " are", " was", " were", " has", " have", the form that agrees with the subject; the
    wrong answer is the other form of the same verb. Both forms of a noun are one token with a leading space, so a
    prompt and its counterfactual align token by token.

    Counterfactuals, always of the same sentence and verb:

    - `subject_number` (the default): the subject changes its number. The right answer becomes the wrong one.
    - `attractor_number`: the attractor changes its number. The answer stays.
    - `both_numbers`: both change. The answer changes, and whether the two agree stays.
    - `other_subject`: the subject becomes another noun of the same number. The answer stays.

    Token roles: `subject_last`, `attractor_last` and `end`.

    The splits `train`, `validation` and `test` share neither a sentence nor a noun.

    Attributes:
        attractors: whether the attractor `agrees` with the subject or `differs` from it; each equally often.
    """

    attractors: tuple[str, ...] = _DISTRACTORS

    def __post_init__(self) -> None:
        given = self.attractors
        if not given or set(given) - set(_DISTRACTORS) or len(set(given)) < len(given):
            raise TaskError(
                f"SubjectVerb(attractors={given!r}) is not possible; expected one or both of {', '.join(_DISTRACTORS)}."
            )

    @property
    def counterfactuals(self) -> Mapping[str, str]:
        """The ways in which a prompt can be changed, each with what it does; the first is the default."""
        return dict(_KINDS)

    def pairs(
        self, model: Tokenized, n: int = 64, seed: int = 0, split: str = "train", counterfactual: str | None = None
    ) -> Pairs:
        """Draw counterfactual pairs; see `Task.pairs`.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer has too few nouns as single tokens.
        """
        asked = request(self, n, seed, split, counterfactual)
        nouns = _known_nouns(tokenizer_of(model), split)
        random, verbs, spare = asked.random("clean"), asked.random("verbs"), asked.random("spare")
        templates = random.sample(_TEMPLATES[split], len(_TEMPLATES[split]))
        cells = list(product(templates, _NUMBERS, self.attractors))
        examples = []
        for (template, number, relation), item in asked.draw(cells, len(nouns) * (len(nouns) - 1), random):
            first, second = divmod(item, len(nouns) - 1)
            subject = _Noun(nouns[first], number)
            attractor = _Noun(nouns[second + (second >= first)], number if relation == "agrees" else _other(number))
            third = spare.choice([noun for noun in nouns if noun not in (subject.word, attractor.word)])
            changed = _change(asked.counterfactual, subject, attractor, third)
            forms: dict[str, str] = dict(zip(_NUMBERS, verbs.choice(_VERBS), strict=True))
            examples.append(
                Example(
                    clean=_fill(template, subject, attractor),
                    corrupt=_fill(template, *changed).text,
                    answer=f" {forms[number]}",
                    wrong=f" {forms[_other(number)]}",
                    clean_inputs=_inputs(subject, attractor, number),
                    corrupt_inputs=_inputs(*changed, number),
                )
            )
        return asked.pairs(model, examples)

    def causal_model(self, attraction: float = 0.0) -> CausalModel:
        """The verb takes the number of the subject; the attractor may pull at it.

        Inputs are the nouns (`subject`, `attractor`) with their numbers (`subject_form`, `attractor_form`, each
        "singular" or "plural") and the numbers of the two verbs that are compared (`answer`, `wrong`). The output
        `preference` is 1 for the answer and -1 for the wrong verb, each changed by the attractor's pull.

        Args:
            attraction: how strongly the attractor's number counts beside the subject's, which counts 1.

        Returns:
            The model.
        """
        return CausalModel(
            inputs=("subject", "subject_form", "attractor", "attractor_form", "answer", "wrong"),
            variables={
                "subject_number": Variable(("subject_form",), lambda form: form, "the number of the subject"),
                "attractor_number": Variable(("attractor_form",), lambda form: form, "the number of the other noun"),
                "preference": Variable(
                    ("subject_number", "attractor_number", "answer", "wrong"),
                    lambda subject, attractor, answer, wrong: (
                        _signal(subject, answer, wrong) + attraction * _signal(attractor, answer, wrong)
                    ),
                    "for the answer (positive) or the wrong verb (negative)",
                ),
            },
            output="preference",
        )


def _other(number: str) -> str:
    return _NUMBERS[number == "singular"]


def _signal(number: str, answer: str, wrong: str) -> int:
    return (number == answer) - (number == wrong)


def _change(kind: str, subject: _Noun, attractor: _Noun, third: str) -> tuple[_Noun, _Noun]:
    if kind == "other_subject":
        return _Noun(third, subject.number), attractor
    if kind != "attractor_number":
        subject = subject.flipped()
    if kind != "subject_number":
        attractor = attractor.flipped()
    return subject, attractor


def _fill(template: str, subject: _Noun, attractor: _Noun) -> Filled:
    return fill(template, subject=str(subject), attractor=str(attractor))


def _inputs(subject: _Noun, attractor: _Noun, answer: str) -> dict[str, str]:
    return {
        "subject": subject.word,
        "subject_form": subject.number,
        "attractor": attractor.word,
        "attractor_form": attractor.number,
        "answer": answer,
        "wrong": _other(answer),
    }


def _known_nouns(tokenizer: Any, split: str) -> list[str]:
    nouns = _WRITTEN_NOUNS[split].split(", ")
    forms = [pieces(tokenizer, [f" {noun}{ending}" for noun in nouns]) for ending in ("", "s")]
    known = [
        noun for noun, *both in zip(nouns, *forms, strict=True) if all(is_one_token(tokenizer, ids) for ids in both)
    ]
    if len(known) < _FEWEST_NOUNS:
        raise TaskError(
            "SubjectVerb needs nouns whose singular and plural are one token each, with a leading space. The tokenizer "
            f"{called(tokenizer)} has {len(known)} of {len(nouns)} such nouns in split {split!r}; expected at least "
            f"{_FEWEST_NOUNS}. Use a model with a vocabulary of English words, or give your own prompts to "
            "ip.pairs(...)."
        )
    return known
