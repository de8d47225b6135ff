"""The task of Hanna et al. 2023 (https://arxiv.org/abs/2305.00586), in sentences of our own, for any tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from interpose.errors import TaskError
from interpose.tasks._align import is_one_token, pieces, tokenizer_of
from interpose.tasks._drawing import Example, called, request
from interpose.tasks._roles import fill
from interpose.tasks.base import CausalModel, Pairs, Task, Tokenized, Variable

_YEARS = range(1100, 2000)
_FEWEST_YEARS = 20
_KINDS = MappingProxyType(
    {
        "low_year": "the first year becomes the earliest with this beginning, so both endings fit (1 token differs)",
        "late_year": "the first year becomes the latest with this beginning, so neither ending fits (1 token differs)",
        "same_order": "the first year ends otherwise, between the two endings; the answer stays (1 token differs)",
    }
)
_TEMPLATES = MappingProxyType(
    {
        "train": (
            "The {event} lasted from the year {start} to the year {stop}",
            "The {event} began in {start} and ended in {stop}",
            "As far as we know, the {event} went on from {start} until {stop}",
            "The archive holds letters about the {event}, written between {start} and {stop}",
            "It is said that the {event} started in {start} and came to an end in {stop}",
            "Historians date the {event} from {start} to {stop}",
            "News of the {event} first spread in the year {start} and was last heard in the year {stop}",
            "He wrote a book on the {event}, which ran from {start} to {stop}",
        ),
        "validation": (
            "People here lived through the {event} from {start} to {stop}",
            "The first stage of the {event} was reached in {start} and the last in {stop}",
            "Records of the {event} open in {start} and break off in {stop}",
            "Our teacher spoke about the {event}, from its start in {start} to its close in {stop}",
        ),
        "test": (
            "The {event} was announced in {start} and called off in {stop}",
            "Everyone remembered the {event}, begun in {start} and over by {stop}",
            "The {event} filled all the years from {start} up to {stop}",
            "Songs about the {event} were sung from the spring of {start} to the autumn of {stop}",
        ),
    }
)
_WRITTEN_EVENTS = MappingProxyType(
    {
        "train": "war, siege, famine, strike, expedition, trade, drought, revolt, project, excavation, tour, inquiry, "
        "occupation, alliance, boom, dispute",
        "validation": "campaign, contest, blockade, plague, partnership, voyage, debate, survey",
        "test": "conflict, festival, rebellion, exhibition, truce, journey, crisis, trial",
    }
)


class _Head(NamedTuple):
    """A year's beginning, and the endings that make one more token of it: their numbers, and as they are written."""

    text: str
    endings: Mapping[int, str]

    def year(self, ending: int) -> str:
        return self.text + self.endings[ending]


class _Start(NamedTuple):
    head: _Head
    ending: int


@dataclass(frozen=True)
class GreaterThan(Task):
    """Greater-than: a second year has to be later than the first.

    "The war lasted from the year 1732 to the year 17" should go on with two digits above 32. The second year repeats
    the first one up to its last token, and the model has to say what that last token is. How many digits that is
    depends on the tokenizer: where years are a century and two more digits, "17" is repeated and the ending is above
    32; where each digit is a token of its own (SmolLM2, Qwen2.5, Gemma), "173" is repeated and the ending is above 2;
    so it is where three digits go together (Llama 3). In each case exactly the larger endings are right.

    The answer is an ending above the first year's, the wrong one an ending below it; both are one token. Years are
    from 1100 to 1999, those that the tokenizer splits in this way.

    Counterfactuals, always of the same sentence and event; only the first year's ending differs:

    - `low_year` (the default): it becomes the lowest there is (1701, or 1730), so that both endings fit.
    - `late_year`: it becomes the highest there is (1799, or 1739), so that neither fits.
    - `same_order`: it becomes another one between the two endings, or stays where there is none. The answer stays.

    Token roles: `event`, `start` (the first year) and `stop` (the second, as far as it is written), each with
    `_last`, and with `_first` where it is several tokens; and `end`. The first year's ending is `start_last`.

    The splits `train`, `validation` and `test` share no sentence, no event and no clean first year.
    """

    @property
    def counterfactuals(self) -> Mapping[str, str]:
        """The ways in which a prompt can be changed, each with what it does; the first is the default."""
        return dict(_KINDS)

    def pairs(
        self, model: Tokenized, n: int = 64, seed: int = 0, split: str = "train", counterfactual: str | None = None
    ) -> Pairs:
        """Draw counterfactual pairs; see `Task.pairs`.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer has too few years that end in one token
                of their own.
        """
        asked = request(self, n, seed, split, counterfactual)
        starts, events = _starts(tokenizer_of(model), split), _WRITTEN_EVENTS[split].split(", ")
        random, answers, spare = asked.random("clean"), asked.random("answers"), asked.random("spare")
        cells = random.sample(_TEMPLATES[split], len(_TEMPLATES[split]))
        examples = []
        for template, number in asked.draw(cells, len(events) * len(starts), random):
            which, event = divmod(number, len(events))
            head, ending = starts[which]
            lowest, highest = min(head.endings), max(head.endings)
            right = answers.choice([other for other in head.endings if other > ending])
            wrong = answers.choice([other for other in head.endings if lowest < other < ending])
            between = [other for other in head.endings if wrong <= other < right and other != ending] or [ending]
            changed = {"low_year": lowest, "late_year": highest, "same_order": spare.choice(between)}[
                asked.counterfactual
            ]
            words = {"event": events[event], "stop": head.text}
            examples.append(
                Example(
                    clean=fill(template, start=head.year(ending), **words),
                    corrupt=fill(template, start=head.year(changed), **words).text,
                    answer=head.endings[right],
                    wrong=head.endings[wrong],
                    clean_inputs={"start": ending, "answer": right, "wrong": wrong},
                    corrupt_inputs={"start": changed, "answer": right, "wrong": wrong},
                )
            )
        return asked.pairs(model, examples)

    def causal_model(self) -> CausalModel:
        """The first year's ending sets a bound, and an ending fits if it lies above it.

        Inputs are three endings: `start`, of the first year, and the two that are compared (`answer`, `wrong`). The
        output `preference` is 1 where only the answer fits, 0 where both or neither do, and -1 where only the wrong
        one does. Exchanging `bound` with a counterfactual gives 0 for `low_year` and `late_year`, 1 for `same_order`.

        Returns:
            The model.
        """
        return CausalModel(
            inputs=("start", "answer", "wrong"),
            variables={
                "bound": Variable(("start",), lambda start: start, "what the second year's ending has to exceed"),
                "answer_fits": Variable(("answer", "bound"), _fits, "whether the answer lies above the bound"),
                "wrong_fits": Variable(("wrong", "bound"), _fits, "whether the wrong ending lies above the bound"),
                "preference": Variable(
                    ("answer_fits", "wrong_fits"),
                    lambda answer, wrong: int(answer) - int(wrong),
                    "1: only the answer fits; 0: both or neither; -1: only the wrong ending",
                ),
            },
            output="preference",
        )


def _fits(ending: int, bound: int) -> bool:
    return ending > bound


def _starts(tokenizer: Any, split: str) -> list[_Start]:
    """First years of a split: there is a larger ending, and a smaller one that is not the lowest."""
    starts = []
    for head in _heads(tokenizer):
        lowest, *others = sorted(head.endings)
        for ending in others[1:-1]:
            place = int(head.year(ending)) % 4
            if split == ("train", "train", "validation", "test")[place]:
                starts.append(_Start(head, ending))
    if len(starts) < _FEWEST_YEARS:
        raise TaskError(
            f"GreaterThan needs years whose last one or two digits are a token of their own, as in 17|32 or 1|7|3|2. "
            f"The tokenizer {called(tokenizer)} has {len(starts)} such years in split {split!r}, expected at least "
            f"{_FEWEST_YEARS}; it cuts 1732 into {_shown(tokenizer)}. Use a model that splits numbers, or give your "
            "own prompts to ip.pairs(...)."
        )
    return starts


def _heads(tokenizer: Any) -> list[_Head]:
    """Every beginning of a year with the endings that are one more token after it, and one token by themselves."""
    years = [str(year) for year in _YEARS]
    whole = dict(zip(years, pieces(tokenizer, [f" {year}" for year in years]), strict=True))
    beginnings = sorted({year[:length] for year in years for length in (2, 3)})
    begun = dict(zip(beginnings, pieces(tokenizer, [f" {text}" for text in beginnings]), strict=True))
    tails = sorted({year[length:] for year in years for length in (2, 3)})
    alone = dict(zip(tails, pieces(tokenizer, tails), strict=True))
    found: dict[str, dict[int, str]] = {}
    for year, ids in whole.items():
        for length in (2, 3):
            tail = year[length:]
            if ids == [*begun[year[:length]], *alone[tail]] and is_one_token(tokenizer, alone[tail]):
                found.setdefault(year[:length], {})[int(tail)] = tail
    return [_Head(text, endings) for text, endings in found.items() if len(endings) > 3]


def _shown(tokenizer: Any) -> str:
    (ids,) = pieces(tokenizer, [" 1732"])
    return "|".join(repr(tokenizer.decode([token])) for token in ids)
