"""How far the right answer is ahead of the wrong one, in logits."""

from jaxtyping import Float, Int
from torch import Tensor


def logit_difference(output: Float[Tensor, "*batch vocab"], target: Int[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    """Logit of the answer minus logit of the wrong answer.

    Args:
        output: logits at the position that is judged, mostly the last.
        target: for each example the token id of the answer and of the wrong answer, in this order.

    Returns:
        One number an example, in logits; take `.mean()` for one number.
    """
    picked = output.gather(-1, target)
    return picked[..., 0] - picked[..., 1]
