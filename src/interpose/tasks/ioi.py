"""The task of Wang et al. 2022 (https://arxiv.org/abs/2211.00593), in sentences of our own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple

from interpose.errors import TaskError
from interpose.tasks._align import is_one_token, pieces, tokenizer_of
from interpose.tasks._drawing import Example, Request, called, request
from interpose.tasks._ioi_text import NAMES, OBJECTS, PLACES, TEMPLATES
from interpose.tasks._roles import Filled, fill
from interpose.tasks.base import SPLITS, CausalModel, Pairs, Task, Tokenized, Variable

_FEWEST_NAMES = 20
_FEWEST_IN_SPLIT = 4  # two in the prompt and two to replace them
_ORDERS = ("ABBA", "BABA")


class _Slots(NamedTuple):
    """Who stands where: the two names of the first clause, and the one that the second clause repeats."""

    first: str
    second: str
    subject: str

    @property
    def other(self) -> str:
        """The name of the first clause that is not the subject."""
        return self.second if self.subject == self.first else self.first


class _Frame(NamedTuple):
    """What a prompt says around the names; its counterfactual says the same."""

    template: str
    place: str
    thing: str


class _Counterfactual(NamedTuple):
    meaning: str
    change: Callable[[_Slots, str, str], _Slots]


_COUNTERFACTUALS: Mapping[str, _Counterfactual] = MappingProxyType(
    {
        "s2_io_flip": _Counterfactual(
            "the repeated name becomes the other one, so the right answer becomes the wrong one (1 token differs)",
            lambda slots, *_: slots._replace(subject=slots.other),
        ),
        "random_names": _Counterfactual(
            "both people get other names, in the same pattern (3 tokens differ)",
            lambda slots, x, y: _Slots(x, y, x if slots.subject == slots.first else y),
        ),
        "abc": _Counterfactual(
            "the repeated name becomes a third one, so nothing says who receives it (1 token differs)",
            lambda slots, x, _: slots._replace(subject=x),
        ),
        "s1_io_flip": _Counterfactual(
            "the two names of the first clause change places; the answer stays (2 tokens differ)",
            lambda slots, *_: slots._replace(first=slots.second, second=slots.first),
        ),
        "s1_ioi_flip_s2_ioi_flip": _Counterfactual(
            "the two people change roles everywhere, so the order stays and the answer changes (3 tokens differ)",
            lambda slots, *_: _Slots(slots.second, slots.first, slots.other),
        ),
    }
)


@dataclass(frozen=True)
class IOI(Task):
    """Indirect object identification: which of two people receives something.

    "While Kate and Paul were waiting outside the bakery, Paul handed a map to" should go on with " Kate". The first
    clause names two people; the second repeats one of them, the subject S, who gives; the one who receives is the
    other, the indirect object IO. To answer, a model has to notice which name is repeated and to say the other one.

    The answer is IO and the wrong answer is S. Half of the prompts name IO first (ABBA), half S first (BABA). A name is
    one token with its leading space, so a prompt and its counterfactual align token by token.

    Counterfactuals, always of the same sentence, place and object:

    - `s2_io_flip` (the default): the repeated name becomes the other one. The right answer becomes the wrong one.
    - `random_names`: both people get other names, in the same pattern. Neither answer is in the prompt.
    - `abc`: the repeated name becomes a third one. Nothing says who receives it.
    - `s1_io_flip`: the two names of the first clause change places. The answer stays, its place changes.
    - `s1_ioi_flip_s2_ioi_flip`: the two people change roles everywhere. The answer changes, its place stays.

    The splits `train`, `validation` and `test` share neither a sentence nor a name. Sentences, names, places and
    objects are interpose's own.

    Attributes:
        orders: which orders of the names are used, each equally often.
    """

    orders: tuple[str, ...] = ("ABBA", "BABA")

    def __post_init__(self) -> None:
        if not self.orders or set(self.orders) - set(_ORDERS) or len(set(self.orders)) < len(self.orders):
            raise TaskError(
                f"IOI(orders={self.orders!r}) is not possible; expected one or both of {', '.join(_ORDERS)}."
            )

    @property
    def counterfactuals(self) -> Mapping[str, str]:
        """The ways in which a prompt can be changed, each with what it does; the first is the default."""
        return {name: entry.meaning for name, entry in _COUNTERFACTUALS.items()}

    def pairs(
        self, model: Tokenized, n: int = 64, seed: int = 0, split: str = "train", counterfactual: str | None = None
    ) -> Pairs:
        """Draw counterfactual pairs; see `Task.pairs`.

        Returns:
            The pairs. Their `clean_inputs` and `corrupt_inputs` are inputs of `causal_model`. Their roles are `io`,
            `s1` and `s2`, the names of the receiver and of the giver, first and again; `s1+1`, the token after `s1`;
            and `end`, the last token.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer has too few names as single tokens.
        """
        asked = request(self, n, seed, split, counterfactual)
        names = _single_token_names(tokenizer_of(model), split)
        # A generator of its own for the replacements, so that every counterfactual has the same clean prompts.
        spare = asked.random("spare")
        change = _COUNTERFACTUALS[asked.counterfactual].change
        examples = []
        for frame, slots in self._draw(asked, names):
            changed = change(slots, *spare.sample([name for name in names if name not in slots], 2))
            examples.append(
                Example(
                    clean=_roles(frame, slots),
                    corrupt=_fill(frame, changed).text,
                    answer=f" {slots.other}",
                    wrong=f" {slots.subject}",
                    clean_inputs=_inputs(slots, slots),
                    corrupt_inputs=_inputs(changed, slots),
                )
            )
        made = asked.pairs(model, examples)
        found = made.roles
        return replace(
            made,
            roles={
                "io": found["io_last"],
                "s1": found["s1_last"],
                "s1+1": found["s1_last"] + 1,
                "s2": found["s2_last"],
                "end": found["end"],
            },
        )

    def causal_model(self, bias: float = 0.0, position_weight: float = 1.0, token_weight: float = 1.0) -> CausalModel:
        """Two signals say who receives: where that person stands in the first clause, and who it is.

        Inputs are the three name slots (`first`, `second`, `subject`) and the two names that are compared (`answer`,
        `wrong`). `output_position` is 0 if the name that is not repeated comes first and 1 if second; `output_token` is
        that name; both are None if no name is repeated. Each gives a signal: it speaks for the answer (+1), for the
        wrong name (-1) or for neither (0). A position taken from another prompt points at whoever stands there in this
        one. Exchanging both variables with a counterfactual of the base gives these signals (position, token):

            the prompt itself (1, 1)     s1_io_flip (-1, 1)                s2_io_flip (-1, -1)
            random_names (1, 0)          s1_ioi_flip_s2_ioi_flip (1, -1)   abc (0, 0)

        The prompt itself and the three flips are coded as in the causal-variable track of MIB
        (https://arxiv.org/abs/2504.13151).

        Args:
            bias: the logit difference when neither signal speaks.
            position_weight: what the position signal adds to the logit difference, in logits.
            token_weight: what the token signal adds to it, in logits.

        Returns:
            The model; its output is `logit_difference`.
        """
        return CausalModel(
            inputs=("first", "second", "subject", "answer", "wrong"),
            variables={
                "output_position": Variable(
                    ("first", "second", "subject"), _position, "place of the name that is not repeated: 0 or 1"
                ),
                "output_token": Variable(("first", "second", "subject"), _token, "the name that is not repeated"),
                "position_signal": Variable(
                    ("output_position", "first", "second", "answer", "wrong"),
                    _position_signal,
                    "whom the place speaks for",
                ),
                "token_signal": Variable(("output_token", "answer", "wrong"), _signal, "whom the name speaks for"),
                "logit_difference": Variable(
                    ("position_signal", "token_signal"),
                    lambda position, token: bias + position_weight * position + token_weight * token,
                    "logit(answer) - logit(wrong)",
                ),
            },
            output="logit_difference",
        )

    def _draw(self, asked: Request, names: tuple[str, ...]) -> list[tuple[_Frame, _Slots]]:
        """Distinct prompts, as many of each sentence and order as of any other, or one more."""
        random, templates = asked.random("clean"), TEMPLATES[asked.split]
        cells = list(product(random.sample(templates, len(templates)), self.orders))
        drawn = asked.draw(cells, len(PLACES) * len(OBJECTS) * len(names) * (len(names) - 1), random)
        return [_prompt(template, order, names, number) for (template, order), number in drawn]


def _prompt(template: str, order: str, names: tuple[str, ...], number: int) -> tuple[_Frame, _Slots]:
    """The prompt that `number` stands for, among all with this sentence and order."""
    number, place = divmod(number, len(PLACES))
    number, thing = divmod(number, len(OBJECTS))
    io, s = divmod(number, len(names) - 1)
    receiver, giver = names[io], names[s + (s >= io)]
    slots = _Slots(receiver, giver, giver) if order == "ABBA" else _Slots(giver, receiver, giver)
    return _Frame(template, PLACES[place], OBJECTS[thing]), slots


def _fill(frame: _Frame, slots: _Slots) -> Filled:
    return fill(frame.template, place=frame.place, object=frame.thing, **slots._asdict())


def _roles(frame: _Frame, slots: _Slots) -> Filled:
    """The prompt with its names called by who they are, rather than by where they stand."""
    text, words = _fill(frame, slots)
    s1, io = ("first", "second") if slots.subject == slots.first else ("second", "first")
    return Filled(text, {"io": words[io], "s1": words[s1], "s2": words["subject"]})


def _inputs(slots: _Slots, clean: _Slots) -> dict[str, str]:
    """A prompt as the causal model sees it, asked about the two names of the clean prompt."""
    return {**slots._asdict(), "answer": clean.other, "wrong": clean.subject}


def _single_token_names(tokenizer: Any, split: str) -> tuple[str, ...]:
    single = {}
    for part in SPLITS:
        found = pieces(tokenizer, [f" {name}" for name in NAMES[part]])
        single[part] = tuple(name for name, ids in zip(NAMES[part], found, strict=True) if is_one_token(tokenizer, ids))
    usable, known = sum(map(len, single.values())), sum(map(len, NAMES.values()))
    if usable < _FEWEST_NAMES or len(single[split]) < _FEWEST_IN_SPLIT:
        raise TaskError(
            f"IOI needs names that are one token with a leading space. The tokenizer {called(tokenizer)} has "
            f"{usable} of {known} such names, {len(single[split])} of them in split {split!r}; expected at least "
            f"{_FEWEST_NAMES}, and at least {_FEWEST_IN_SPLIT} in the split. Use a model with a vocabulary of English "
            "words, or give your own prompts to ip.pairs(...)."
        )
    return single[split]


def _position(first: str, second: str, subject: str) -> int | None:
    return {second: 0, first: 1}.get(subject)


def _token(first: str, second: str, subject: str) -> str | None:
    return {second: first, first: second}.get(subject)


def _signal(name: str | None, answer: str, wrong: str) -> int:
    return (name == answer) - (name == wrong)


def _position_signal(position: int | None, first: str, second: str, answer: str, wrong: str) -> int:
    return 0 if position is None else _signal((first, second)[position], answer, wrong)
