"""How far one distribution over the vocabulary lies from another."""

import torch
from jaxtyping import Float
from torch import Tensor


def kl(output: Float[Tensor, "*batch vocab"], target: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch"]:
    """KL(softmax(target) || softmax(output)), summed over the vocabulary.

    Args:
        output: logits of the run that is judged.
        target: logits of the run it is held against, mostly the clean one.

    Returns:
        One number an example, in nats: 0 where both agree, infinite where the output rules out what the target allows.
    """
    wanted = target.log_softmax(-1)
    found = output.log_softmax(-1)
    # A token of probability zero in the target adds nothing, whatever the output gives it (0 * inf would be NaN).
    terms = torch.where(wanted.isneginf(), 0.0, wanted.exp() * (wanted - found))
    return terms.sum(-1)
