"""Duplicate tokens in two layers: each word looks for itself further left; the end looks for the word that found it."""

from dataclasses import dataclass
from typing import final

import torch

from interpose.loading.cards import Score, Truth
from interpose.studies._zoo._by_hand import CODE, Hand, codes, config, vocabulary
from interpose.studies._zoo.base import Draft, Recipe, task_scores
from interpose.tasks._words import WORDS
from interpose.tasks.duplicate_token import ASKED, DuplicateToken
from interpose.trace import Model

_SPACES = ("token", "seen", "nothing", "answer")
_ALL = (*(word for split in WORDS.values() for word in split.split()), ASKED)
_SHARP = 24.0  # the score of a word with itself; half of it goes to `<s>`, and nobody looks at its own place
_LOGIT = 10.0
_EDGES = (
    "input->a0.h0<q>",
    "input->a0.h0<k>",
    "input->a0.h0<v>",
    "a0.h0->a1.h0<k>",
    "a0.h0->a1.h0<v>",
    "a1.h0->logits",
)


@final
@dataclass(frozen=True)
class DuplicateTokenByHand(Recipe):
    """The duplicate token with hand-written weights.

    a0.h0 looks, from each word, at the same word further left, and at `<s>` where there is none; its own place is put
    out of its sight by position. What it finds it copies to `seen`, and where that is `<s>` it leaves a mark in
    `nothing`. a1.h0 looks, wherever it stands, for a place without the mark, and copies what was `seen` there to
    `answer`, which alone the logits read.
    """

    def draft(self) -> Draft:
        """What is known of the model before it is made."""
        return Draft(
            what="Duplicate tokens by hand: a head that finds a word again and one that reports it, among idle parts.",
            architecture="gpt2",
            config=config(_SPACES, layers=2, words=len(_ALL), head=72),
            tokenizer=vocabulary(_ALL),
            task="duplicate-token",
            data="none: every weight is written by hand",
            note="weights written by hand, circuit known exactly",
            truth=Truth(
                _EDGES,
                "By construction. Only `answer` reaches the logits; a1.h0 writes it, and a0.h2 by position alone. All "
                "other heads and both MLPs write to `junk`, which neither of them reads. The query of a1.h0 is a "
                "constant.",
            ),
        )

    def network(self, seed: int) -> torch.nn.Module:
        """The weights; the seed is of the idle parts."""
        hand = Hand(self.draft().config, _SPACES, seed)
        same, words, mark = torch.eye(CODE), codes(len(_ALL)), codes(1)[0]
        hand.embed("token", words)
        hand.embed_start("nothing", mark)
        hand.unembed("answer", _LOGIT * words)
        # In a0.h0 the code of the word comes first, that of the position behind it, and `<s>` last.
        behind, last = torch.zeros(CODE, 2 * CODE), torch.zeros(CODE, 2 * CODE + 1)
        behind[:, CODE:], last[:, -1] = same, mark
        query = hand.reads(token=_SHARP * same, position=-2 * _SHARP * behind)
        key = hand.reads(token=same, position=behind, nothing=last)
        at_start = torch.zeros(hand.wide)
        at_start[2 * CODE] = _SHARP / 2
        both = torch.cat([same, torch.zeros(CODE, CODE)]), torch.cat([torch.zeros(CODE, CODE), same])
        move = hand.reads(token=both[0].T, nothing=both[1].T), hand.writes(seen=both[0], nothing=both[1])
        hand.head(0, 0, (query, key), move, (at_start, torch.zeros(hand.wide)))
        constant = torch.zeros(hand.wide)
        constant[0] = -_SHARP
        look_for = hand.reads(), hand.reads(nothing=mark[:, None])
        move = hand.reads(seen=same), hand.writes(answer=same)
        hand.head(1, 0, look_for, move, (constant, torch.zeros(hand.wide)))
        hand.idle_head(0, 1, ["token", "position"])
        hand.position_head(0, 2, "answer", 0.1)
        hand.idle_mlp(0, ["token", "seen", "junk"])
        hand.idle_head(1, 1, ["token", "seen", "junk"])
        hand.idle_head(1, 2, ["seen", "nothing"])
        hand.idle_mlp(1, ["token", "seen", "answer", "junk"])
        return hand.network

    def evaluate(self, model: Model, seed: int) -> dict[str, Score]:
        """Accuracy on duplicate tokens."""
        return task_scores(model, DuplicateToken(), seed)
