"""A recipe that trains a very small network, and a program that follows it: python tiny_recipe.py OUT KILLED_AT."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interpose.loading import zoo
from interpose.loading.cards import Score, Vocabulary
from interpose.search.progress import watching
from interpose.studies._zoo._making import Order, make
from interpose.studies._zoo.base import Draft, Trained, Training
from interpose.trace import Model

STEPS, EVERY = 12, 5
WORDS = ("<pad>", "<unk>", "<s>", *(f"w{i}" for i in range(9)))
CONFIG = {"layers": 1, "heads": 2, "width": 16, "neurons": 32, "positions": 16, "vocab": len(WORDS), "pad_token_id": 0}


@dataclass(frozen=True)
class Tiny(Trained):
    """Learns that the words come round: after word i comes word i + 1."""

    rate: float = 3e-2

    def draft(self) -> Draft:
        return Draft(
            what="A test.",
            architecture="gpt2",
            config={**CONFIG, "bos_token_id": 2, "eos_token_id": 0},
            tokenizer=Vocabulary(WORDS, "<s>"),
            task="",
            data="made up",
            note="a test",
            steps=STEPS,
        )

    def network(self, seed: int) -> torch.nn.Module:
        return zoo.fresh("gpt2", self.draft().config, seed)

    def training(self, model: Model, steps: int) -> Training:
        network: Any = model.network

        def loss(step: int, random: torch.Generator) -> Tensor:
            begin = torch.randint(9, (8, 1), generator=random).to(model.device)
            tokens = 3 + (begin + torch.arange(8, device=begin.device)) % 9
            return network(input_ids=tokens, labels=tokens).loss  # with GPT-2's dropout, which is drawn by torch itself

        optimiser = torch.optim.AdamW(network.parameters(), lr=self.rate)
        return Training(optimiser, loss, rate=lambda step: 1 - step / steps, clip=1.0)

    def evaluate(self, model: Model, seed: int) -> dict[str, Score]:
        with model.trace("w0 w1 w2 w3"):
            last = model.logits[:, -1].save()
        right = float(last.argmax() == WORDS.index("w4"))
        return {"right": Score(right, right, right, 1)}


def follow(out: Path, killed_at: int | None = None, **settings: Any) -> Any:
    """Follow the recipe, with a checkpoint after every step; the process is killed once so many steps are done."""

    def watch(what: str, done: int, total: int) -> None:
        if done == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    with watching(watch):
        return make(Tiny(), Order("tiny", out, every=0.0, **settings))


if __name__ == "__main__":
    follow(Path(sys.argv[1]), int(sys.argv[2]))
