"""The area under a curve over circuit sizes."""

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.errors import SearchError


def area(
    sizes: Float[Tensor, "sizes"], values: Float[Tensor, "*batch sizes"], *, log: bool = False
) -> Float[Tensor, "*batch"]:
    """The integral of a curve by the trapezoid rule, over the size k or over ln k.

    Args:
        sizes: shares of all edges, rising; above 0 where `log`.
        values: the curve at those sizes.
        log: integrate over ln k. Over k the half from .5 to 1 weighs as much as all smaller circuits together; over
            ln k every halving of the size weighs the same.

    Returns:
        The integral; for the constant 1 it is the range of k (.999 on the MIB grid) or of ln k (6.9).

    Raises:
        SearchError: the sizes do not rise, are fewer than two, or are not above 0 where `log`.
    """
    if len(sizes) < 2 or bool((sizes.diff() <= 0).any()) or (log and float(sizes[0]) <= 0):
        raise SearchError(
            f"An area needs two or more sizes that rise{' and are above 0' if log else ''}, but got {sizes.tolist()}."
        )
    return torch.trapezoid(values, sizes.log() if log else sizes)
