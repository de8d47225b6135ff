"""Circuit-model distance: how far circuits of all sizes are from doing what the model does."""

from jaxtyping import Float
from torch import Tensor

from interpose.metrics.area import area


def cmd(
    sizes: Float[Tensor, "sizes"], faithfulness: Float[Tensor, "*batch sizes"], *, log: bool = False
) -> Float[Tensor, "*batch"]:
    """The area between the faithfulness curve and 1; lower is better, 0 is best.

    Source: the MIB circuit track, https://arxiv.org/abs/2504.13151, where circuits are cut by the size of the score.

    Args:
        sizes: shares of all edges, rising.
        faithfulness: of the circuits of those sizes.
        log: integrate over ln k in place of k.
    """
    return area(sizes, (1 - faithfulness).abs(), log=log)
