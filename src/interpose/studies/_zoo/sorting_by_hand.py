"""The smaller of two numbers: two heads fetch them as columns of marks, and an MLP keeps the marks that both have."""

from dataclasses import dataclass
from typing import final

import torch

from interpose.loading.cards import Score, Truth
from interpose.studies._zoo._by_hand import CODE, Hand, codes, config, vocabulary
from interpose.studies._zoo.base import Draft, Recipe, task_scores
from interpose.tasks.sorting import LARGEST, Sorting, material
from interpose.trace import Model

_SPACES = ("number", "first", "second", "smaller")
_NUMBERS = tuple(str(number) for number in range(1, LARGEST + 1))
_ALL = ("sort", ":", *_NUMBERS)
_SHARP = 12.0
_LOGIT = 10.0
_MARK = 0.2  # the length of a mark in the stream
_BOTH = 0.75  # what a neuron reads where both numbers have the mark; with one of them it reads -0.25, else -1.25
_FIRST, _SECOND = 2, 3  # the positions of the numbers, behind `<s>` and `sort`
_EDGES = (
    "input->a0.h0<v>",
    "input->a0.h1<v>",
    "a0.h0->m0",
    "a0.h1->m0",
    "m0->logits",
)


@final
@dataclass(frozen=True)
class SortingByHand(Recipe):
    """Which of two numbers comes first, with hand-written weights.

    A number n has the marks 1 to n, as a thermometer has. a0.h0 brings those of the first number from its position,
    a0.h1 those of the second one. For each mark one neuron of m0 fires where both numbers have it, which leaves the
    marks of the smaller one. The logit of n is high where mark n is there and mark n + 1 is not.
    """

    def draft(self) -> Draft:
        """What is known of the model before it is made."""
        return Draft(
            what="Sorting two numbers by hand: two heads fetch them, thirty neurons compare them, among idle parts.",
            architecture="gpt2",
            config=config(_SPACES, layers=2, words=len(_ALL), activation="relu"),
            tokenizer=vocabulary(_ALL),
            task="sorting",
            data="none: every weight is written by hand",
            note="weights written by hand, circuit known exactly",
            truth=Truth(
                _EDGES,
                "By construction. Only `smaller` reaches the logits; thirty neurons of m0 write it, from what a0.h0 "
                "and a0.h1 bring, and a0.h3 adds what depends on the position alone. All other heads and neurons "
                "write to `junk`, which none of these reads.",
            ),
        )

    def network(self, seed: int) -> torch.nn.Module:
        """The weights; the seed is of the idle parts."""
        hand = Hand(self.draft().config, _SPACES, seed)
        places, same, marks = codes(CODE - 1), torch.eye(CODE), codes(LARGEST)
        thermometer = torch.ones(LARGEST, LARGEST).tril()
        hand.embed("number", _MARK * thermometer @ marks)
        for head, (place, space) in enumerate(((_FIRST, "first"), (_SECOND, "second"))):
            query = torch.zeros(hand.wide)
            query[:CODE] = _SHARP * places[place]
            look = hand.reads(), hand.reads(position=same)
            move = hand.reads(number=same), hand.writes(**{space: same})
            hand.head(0, head, look, move, (query, torch.zeros(hand.wide)))
        hand.idle_head(0, 2, ["number", "position"])
        hand.idle_head(0, 4, ["number"])
        hand.position_head(0, 3, "smaller", 0.01)
        hand.idle_mlp(0, ["number", "first", "second", "junk"])
        for number, mark in enumerate(marks):
            read = mark / _MARK
            hand.neuron(0, number, {"first": read, "second": read}, {"smaller": mark * _MARK / _BOTH}, _BOTH - 2)
        for head in range(5):
            hand.idle_head(1, head, ["number", "first", "junk"])
        hand.idle_mlp(1, ["second", "smaller", "junk"])
        hand.unembed("smaller", _LOGIT / _MARK * (marks - torch.cat([marks[1:], torch.zeros(1, CODE)])))
        return hand.network

    def evaluate(self, model: Model, seed: int) -> dict[str, Score]:
        """Accuracy on sorting."""
        return task_scores(model, Sorting(), seed, n=2 * len(material("test")))
