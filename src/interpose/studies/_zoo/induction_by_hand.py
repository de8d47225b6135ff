"""Induction in two layers: the previous word is noted beside each word, then the place whose note is the last word."""

from dataclasses import dataclass
from typing import final

import torch

from interpose.loading.cards import Score, Truth
from interpose.studies._zoo._by_hand import CODE, Hand, codes, config, vocabulary
from interpose.studies._zoo.base import Draft, Recipe, task_scores
from interpose.tasks._words import WORDS
from interpose.tasks.induction import Induction
from interpose.trace import Model

_SPACES = ("token", "previous", "answer")
_ALL = tuple(word for split in WORDS.values() for word in split.split())
_SHARP = 12.0  # the score where a head finds what it looks for; e^-12 of the attention goes elsewhere
_LOGIT = 10.0
_EDGES = (
    "input->a0.h0<v>",
    "a0.h0->a1.h0<k>",
    "input->a1.h0<q>",
    "input->a1.h0<v>",
    "a1.h0->logits",
)


@final
@dataclass(frozen=True)
class InductionByHand(Recipe):
    """Induction with hand-written weights.

    a0.h0 looks at the position before and copies its word to `previous`. a1.h0 looks for the position whose `previous`
    is the word that it stands on, and copies the word there to `answer`, which alone the logits read.
    """

    def draft(self) -> Draft:
        """What is known of the model before it is made."""
        return Draft(
            what="Induction by hand: a head for the previous word and an induction head, among idle heads and MLPs.",
            architecture="gpt2",
            config=config(_SPACES, layers=2, words=len(_ALL)),
            tokenizer=vocabulary(_ALL),
            task="induction",
            data="none: every weight is written by hand",
            note="weights written by hand, circuit known exactly",
            truth=Truth(
                _EDGES,
                "By construction. Only `answer` reaches the logits; a1.h0 writes it, and a0.h3 by position alone. All "
                "other heads and both MLPs write to `junk`, which neither of them reads.",
            ),
        )

    def network(self, seed: int) -> torch.nn.Module:
        """The weights; the seed is of the idle parts."""
        hand = Hand(self.draft().config, _SPACES, seed)
        same, words = torch.eye(CODE), codes(len(_ALL))
        hand.embed("token", words)
        hand.unembed("answer", _LOGIT * words)
        places = codes(CODE - 1)
        before = places[1:].T @ places[:-1]  # takes the code of each position to that of the one before
        look_back = hand.reads(position=_SHARP * before), hand.reads(position=same)
        hand.head(0, 0, look_back, (hand.reads(token=same), hand.writes(previous=same)))
        look_for = hand.reads(token=_SHARP * same), hand.reads(previous=same)
        hand.head(1, 0, look_for, (hand.reads(token=same), hand.writes(answer=same)))
        hand.idle_head(0, 1, ["token", "position"])
        hand.idle_head(0, 2, ["token"])
        hand.position_head(0, 3, "answer", 0.1)
        hand.idle_mlp(0, ["token", "previous", "junk"])
        for head in (1, 2, 3):
            hand.idle_head(1, head, ["token", "previous", "junk"])
        hand.idle_mlp(1, ["token", "previous", "answer", "junk"])
        return hand.network

    def evaluate(self, model: Model, seed: int) -> dict[str, Score]:
        """Accuracy on induction."""
        return task_scores(model, Induction(), seed)
