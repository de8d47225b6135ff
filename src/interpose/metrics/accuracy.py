"""How often the most likely token is the answer."""

from jaxtyping import Float, Int
from torch import Tensor


def accuracy(output: Float[Tensor, "*batch vocab"], target: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """1 where the token with the highest logit is the answer, else 0.

    Args:
        output: logits at the position that is judged.
        target: token id of the answer.

    Returns:
        One number an example; take `.mean()` for the share that is right.
    """
    return (output.argmax(-1) == target).to(output.dtype)
