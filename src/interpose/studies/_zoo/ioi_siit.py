"""Indirect object identification, trained: a duplicate-token head, an inhibition head and a name mover, one a layer."""

import re
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, final

import torch

from interpose.graph import Batch
from interpose.loading import zoo
from interpose.loading.cards import Score, Truth, Vocabulary
from interpose.studies._zoo._siit import Aligned, Prompts, config, training
from interpose.studies._zoo._siit_measure import Asked, evaluated
from interpose.studies._zoo.base import Draft, Trained, Training
from interpose.tasks._ioi_text import NAMES, OBJECTS, PLACES, TEMPLATES
from interpose.tasks.base import CausalModel, Variable
from interpose.tasks.ioi import IOI
from interpose.trace import Model

_HOW_MANY = {"train": 16, "validation": 8, "test": 8}
_NAMES = tuple(name for split, n in _HOW_MANY.items() for name in NAMES[split][:: len(NAMES[split]) // n][:n])
_TEMPLATES = sorted((text for split in TEMPLATES.values() for text in split), key=lambda text: len(text.split()))
_FILLED = [text.format(place="", object="", first="", second="", subject="") for text in _TEMPLATES]
_WORD = re.compile(r"\w+|[^\w\s]+")
_WORDS = ("<pad>", "<unk>", "<s>", *sorted({*_WORD.findall(" ".join([*_FILLED, *PLACES, *OBJECTS, *_NAMES]))}))
_IDS = {word: number for number, word in enumerate(_WORDS)}
_CAUSAL = CausalModel(
    inputs=("first", "second", "subject"),
    variables={
        "duplicate": Variable(
            ("first", "second", "subject"),
            lambda first, second, subject: subject if subject in (first, second) else None,
            "the name that is repeated",
        ),
        "inhibition": Variable(("duplicate",), lambda name: name, "the name that must not be said"),
        "mover": Variable(
            ("inhibition", "first", "second"),
            lambda name, first, second: {first: second, second: first}.get(name),
            "the other name of the first clause",
        ),
    },
    output="mover",
)
_PLACED = {"duplicate": "a0.h1", "inhibition": "a1.h2", "mover": "a2.h0"}
_EDGES = (
    "input->a0.h1<q>",
    "a0.h1->a1.h2<v>",
    "a0.h1->a2.h0<v>",
    "a1.h2->a2.h0<v>",
    "a1.h2->logits",
    "a2.h0->logits",
)
_PROOF = (
    "By training and by measurement. The places of the three variables were trained to carry them, each working "
    "through the next one only, and all other nodes to carry nothing; see the scores. On 128 pairs of the test "
    "split, cutting one of these edges alone takes away at least 0.18 of the difference in behaviour between "
    "clean and corrupt prompts, cutting any other edge less than 0.09 (the threshold is 0.1). These edges alone "
    "keep 1.03 of it. The chain a0.h1, a1.h2, a2.h0 decides the answer; a0.h1->a2.h0<v> and a1.h2->logits go past"
    " it and change its logits, but the answer in less than 1 % of pairs."
)
_SAME = 0.6
_FRAMES = 8


class _Sentence(NamedTuple):
    template: str
    place: str
    thing: str

    def tokens(self, names: dict[str, str]) -> list[int]:
        text = self.template.format(place=self.place, object=self.thing, **names)
        return [_IDS["<s>"], *(_IDS[word] for word in _WORD.findall(text))]


@final
@dataclass(frozen=True)
class IOISIIT(Trained):
    """Indirect object identification in three steps, trained to be in three heads.

    a0.h1 is to carry the name that is repeated, a1.h2 the name that must not be said, a2.h0 the other name.

    Attributes:
        examples: with how many pairs the finished model is measured.
    """

    examples: int = 256

    def draft(self) -> Draft:
        """What is known of the model before it is made."""
        return Draft(
            what="Trained to do IOI with one duplicate-token head, one inhibition head and one name mover.",
            architecture="gpt2",
            config=config(layers=3, positions=40, vocab=len(_WORDS)),
            tokenizer=Vocabulary(words=_WORDS, first="<s>", punctuation=True),
            task="ioi",
            data="sentences of the task from all splits, with 32 of its names, drawn anew at each step",
            note="trained so that three heads carry the three variables of a causal graph; knows 32 names",
            steps=2200,
            truth=Truth(_EDGES, _PROOF),
        )

    def network(self, seed: int) -> torch.nn.Module:
        """First weights."""
        return zoo.fresh("gpt2", self.draft().config, seed)

    def training(self, model: Model, steps: int) -> Training:
        """Strict interchange intervention training."""
        return training(model, aligned(), steps, rows=48)

    def evaluate(self, model: Model, seed: int) -> dict[str, Score]:
        """Accuracy, interchange and strictness, and how often the edges of the truth alone prefer the answer."""
        return evaluated(model, IOI(), aligned(), _EDGES, Asked(seed, self.examples))


def aligned() -> Aligned:
    """The causal graph, in its three heads."""
    return Aligned(_CAUSAL, _PLACED, _IDS.__getitem__, _prompts)


def _prompts(n: int, random: Random) -> Prompts:
    """Sentences with two sets of names; most often the same two people, in any order, either of them repeated.

    All are of a few frames of about the same length, so that little is padding.
    """
    base, source, rows = [], [], []
    start = _FRAMES * random.randrange(len(_TEMPLATES) // _FRAMES)
    templates = _TEMPLATES[start : start + _FRAMES]
    for _ in range(n):
        sentence = _Sentence(random.choice(templates), random.choice(PLACES), random.choice(OBJECTS))
        one = random.sample(_NAMES, 2)
        other = random.sample(one if random.random() < _SAME else _NAMES, 2)
        base.append(_names(one, random))
        source.append(_names(other, random))
        rows.append((sentence.tokens(base[-1]), sentence.tokens(source[-1])))
    return Prompts(_batch([row for row, _ in rows]), _batch([row for _, row in rows]), base, source)


def _names(names: list[str], random: Random) -> dict[str, str]:
    return {"first": names[0], "second": names[1], "subject": random.choice(names)}


def _batch(rows: list[list[int]]) -> Batch:
    width = max(map(len, rows))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return Batch.of_tokens(tokens, torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows]))
