"""The last digit of a sum, trained: two heads each bring one digit to the end, and the MLP behind them adds."""

from dataclasses import dataclass
from random import Random
from typing import Any, final

import torch

from interpose.graph import Batch
from interpose.loading import zoo
from interpose.loading.cards import Score, Truth, Vocabulary
from interpose.studies._zoo._siit import Aligned, Prompts, training
from interpose.studies._zoo._siit_measure import kept, measured
from interpose.studies._zoo.base import Draft, Trained, Training
from interpose.tasks.last_digit import NAMES, WORDS, LastDigit
from interpose.trace import Model

_NAMES = tuple(name for split in NAMES.values() for name in split)
_WORDS = ("<pad>", "<unk>", "<s>", *"0123456789", *dict.fromkeys(WORDS), *_NAMES)
_IDS = {word: number for number, word in enumerate(_WORDS)}
_PLACES = {"augend": "a0.h0", "addend": "a0.h3", "digit": "m0"}
_EDGES = ()


@final
@dataclass(frozen=True)
class LastDigitSIIT(Trained):
    """Addition modulo ten, trained to be in two heads and an MLP.

    a0.h0 is to carry the left digit, a0.h3 the right one, m0 the last digit of their sum.
    """

    def draft(self) -> Draft:
        """What is known of the model before it is made."""
        return Draft(
            what="Trained to bring two digits to the end in two heads and to add them modulo ten in the MLP behind.",
            architecture="gpt2",
            config={
                "layers": 2,
                "heads": 4,
                "width": 64,
                "neurons": 128,
                "positions": 12,
                "vocab": len(_WORDS),
                "initializer_range": 0.1,
                "resid_pdrop": 0.0,
                "embd_pdrop": 0.0,
                "attn_pdrop": 0.0,
                "pad_token_id": 0,
                "bos_token_id": 2,
                "eos_token_id": 0,
            },
            tokenizer=Vocabulary(words=_WORDS, first="<s>"),
            task="last-digit",
            data="prompts of the task with the names and digits of all splits, drawn anew at each step",
            note="trained so that two heads and an MLP carry the variables of a causal graph; circuit known",
            steps=1500,
            truth=Truth(_EDGES, ""),
        )

    def network(self, seed: int) -> torch.nn.Module:
        """First weights."""
        return zoo.fresh("gpt2", self.draft().config, seed)

    def training(self, model: Model, steps: int) -> Training:
        """Strict interchange intervention training."""
        return training(model, aligned(), steps)

    def evaluate(self, model: Model, seed: int) -> dict[str, Score]:
        """Accuracy, interchange and strictness, and what the edges of the truth do alone."""
        pairs = LastDigit().pairs(model, n=256, seed=seed, split="test")
        return {**measured(model, aligned(), seed), "truth_alone": kept(model, pairs, _EDGES)}


def aligned() -> Aligned:
    """The task's causal model, in its two heads and its MLP."""
    return Aligned(LastDigit().causal_model(), _PLACES, lambda digit: _IDS[str(digit)], _prompts)


def _prompts(n: int, random: Random) -> Prompts:
    base, source = [_inputs(random) for _ in range(n)], [_inputs(random) for _ in range(n)]
    return Prompts(_batch(base, random), _batch(source, random), base, source)


def _inputs(random: Random) -> dict[str, Any]:
    return {"left": random.randrange(10), "right": random.randrange(10)}


def _batch(inputs: list[dict[str, Any]], random: Random) -> Batch:
    rest = [_IDS[word] for word in WORDS[2:]]
    rows = [
        [_IDS["<s>"], _IDS[random.choice(_NAMES)], _IDS[WORDS[0]], _IDS[str(each["left"])], _IDS[WORDS[1]]]
        + [_IDS[str(each["right"])], *rest]
        for each in inputs
    ]
    tokens = torch.tensor(rows)
    return Batch.of_tokens(tokens, torch.ones_like(tokens, dtype=torch.bool))
