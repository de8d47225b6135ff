"""Comparison, trained: one head notes whether two letters are the same, another fetches the option this asks for."""

from dataclasses import dataclass
from random import Random
from typing import Any, final

import torch

from interpose.graph import Batch
from interpose.loading import zoo
from interpose.loading.cards import Score, Truth, Vocabulary
from interpose.studies._zoo._siit import Aligned, Prompts, config, training
from interpose.studies._zoo._siit_measure import Asked, evaluated
from interpose.studies._zoo.base import Draft, Trained, Training
from interpose.tasks.comparison import LETTERS, OPTIONS, Comparison
from interpose.trace import Model

_OPTIONS = tuple(word for split in OPTIONS.values() for word in split.split())
_LETTERS = tuple(word for split in LETTERS.values() for word in split.split())
_WORDS = ("<pad>", "<unk>", "<s>", *_OPTIONS, *_LETTERS)
_IDS = {word: number for number, word in enumerate(_WORDS)}
_PLACES = {"same": "a0.h1", "choice": "a1.h2"}
_EDGES = ("input->a0.h1<q>", "input->a0.h1<k>", "a0.h1->a1.h2<q>", "input->a1.h2<v>", "a1.h2->logits")
_PROOF = (
    "By training and by measurement. The places of both variables were trained to carry them and all other nodes "
    "to carry nothing; see the scores. On 128 pairs of the test split, cutting one of these edges alone takes "
    "away at least 0.9 of the difference in behaviour between clean and corrupt prompts, cutting any other edge "
    "less than 0.07 (the threshold is 0.1). These edges alone keep 0.98 of it."
)


@final
@dataclass(frozen=True)
class ComparisonSIIT(Trained):
    """Comparison in two steps, trained to be in two heads.

    a0.h1 is to carry whether the letters are the same, a1.h2 the option that is chosen.

    Attributes:
        examples: with how many pairs the finished model is measured.
    """

    examples: int = 256

    def draft(self) -> Draft:
        """What is known of the model before it is made."""
        return Draft(
            what="Trained to compare two letters in one head and to choose an option by that in another.",
            architecture="gpt2",
            config=config(layers=2, positions=8, vocab=len(_WORDS)),
            tokenizer=Vocabulary(words=_WORDS, first="<s>"),
            task="comparison",
            data="prompts of the task with the words of all splits, drawn anew at each step",
            note="trained so that two heads carry the two variables of a causal graph; circuit known",
            steps=1800,
            truth=Truth(_EDGES, _PROOF),
        )

    def network(self, seed: int) -> torch.nn.Module:
        """First weights."""
        return zoo.fresh("gpt2", self.draft().config, seed)

    def training(self, model: Model, steps: int) -> Training:
        """Strict interchange intervention training."""
        return training(model, aligned(), steps)

    def evaluate(self, model: Model, seed: int) -> dict[str, Score]:
        """Accuracy, interchange and strictness, and how often the edges of the truth alone prefer the answer."""
        return evaluated(model, Comparison(), aligned(), _EDGES, Asked(seed, self.examples))


def aligned() -> Aligned:
    """The task's causal model, in its two heads."""
    return Aligned(Comparison().causal_model(), _PLACES, _IDS.__getitem__, _prompts)


def _prompts(n: int, random: Random) -> Prompts:
    """Prompts with any words; half of the sources end in the letter that their base ends in."""
    base, source = [_inputs(random) for _ in range(n)], [_inputs(random) for _ in range(n)]
    for one, other in zip(base, source, strict=True):
        if random.random() < 0.5:
            other["right"] = one["right"]
    return Prompts(_batch(base), _batch(source), base, source)


def _inputs(random: Random) -> dict[str, Any]:
    first, second = random.sample(_OPTIONS, 2)
    left, other = random.sample(_LETTERS, 2)
    return {"first": first, "second": second, "left": left, "right": random.choice((left, other))}


def _batch(inputs: list[dict[str, Any]]) -> Batch:
    tokens = torch.tensor([[_IDS["<s>"], *(_IDS[word] for word in each.values())] for each in inputs])
    return Batch.of_tokens(tokens, torch.ones_like(tokens, dtype=torch.bool))
