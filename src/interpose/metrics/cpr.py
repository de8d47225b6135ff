"""Circuit performance ratio: how much of the behaviour circuits of all sizes bring back."""

from jaxtyping import Float
from torch import Tensor

from interpose.metrics.area import area


def cpr(
    sizes: Float[Tensor, "sizes"], faithfulness: Float[Tensor, "*batch sizes"], *, log: bool = False
) -> Float[Tensor, "*batch"]:
    """The area under the faithfulness curve; higher is better, and it is not bounded.

    Source: the MIB circuit track, https://arxiv.org/abs/2504.13151, where circuits are cut by signed score.

    Args:
        sizes: shares of all edges, rising.
        faithfulness: of the circuits of those sizes.
        log: integrate over ln k in place of k.
    """
    return area(sizes, faithfulness, log=log)
