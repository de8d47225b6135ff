"""The behaviour that a search explains: logit(answer) - logit(wrong) at the last position."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.graph import Batch, Feed
from interpose.tasks.base import Pairs
from interpose.trace import Model, Trace


def logit_difference(model: Model, block: Trace, pairs: Pairs) -> Any:
    """In a block, inside a world: logit(answer) - logit(wrong) at the last position [batch].

    Only the last position is unembedded.

    Args:
        model: the model.
        block: the open block; it gains the inputs `answers` and `wrong`.
        pairs: whose answers give the shape of those inputs.
    """
    logits = last_logits(model)
    answers, wrong = block.input("answers", pairs.answers), block.input("wrong", pairs.wrong)
    return logits.gather(1, answers.unsqueeze(1))[:, 0] - logits.gather(1, wrong.unsqueeze(1))[:, 0]


def last_logits(model: Model) -> Any:
    """In a block, inside a world: the logits at the last position [batch, vocabulary]; no other is unembedded."""
    last = model.layers[-1].output if model.table().final_norm is None else model.norm.output
    return model.call.unembed(last[:, -1])


def feed_of(base: Feed, pairs: Pairs, worlds: dict[str, Batch], **tensors: Any) -> Feed:
    """A recorded block's feed, for other pairs: their answers, these worlds and tensors."""
    return base.with_(worlds, answers=pairs.answers, wrong=pairs.wrong, **tensors)


def behaviour(model: Model, pairs: Pairs, batch_size: int = 16) -> dict[str, Float[Tensor, " n"]]:
    """The behaviour on the clean and on the corrupt prompts.

    Args:
        model: the model.
        pairs: the prompts and answers.
        batch_size: prompts in one forward pass.

    Returns:
        `clean` and `corrupt`: logit(answer) - logit(wrong) of each pair.
    """
    parts = list(pairs.batches(batch_size))
    with model.trace(run=False) as t, t.world("prompt", parts[0].clean_batch()):
        logit_difference(model, t, parts[0]).save("m")
    found: dict[str, Float[Tensor, " n"]] = {}
    for side in ("clean", "corrupt"):
        batches = [part.clean_batch() if side == "clean" else part.corrupt_batch() for part in parts]
        feeds = [feed_of(t.feed, part, {"prompt": batch}) for part, batch in zip(parts, batches, strict=True)]
        runs = model.backend.run_many([t.graph] * len(feeds), feeds)
        found[side] = torch.cat([run["m"] for run in runs])
    return found


def first_difference(pairs: Pairs) -> int:
    """The first position at which any clean prompt differs from its corrupt one; nothing differs before it.

    Returns:
        the position, counted from the last (-1), so that it means the same on prompts of unequal length.

    Raises:
        SearchError: no pair differs anywhere.
    """
    differs = pairs.differs.any(0)
    if not bool(differs.any()):
        raise SearchError("No clean prompt differs from its corrupt one, so there is nothing to search for.")
    return int(differs.nonzero()[0]) - len(differs)
