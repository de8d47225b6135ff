"""The area under the ROC curve: how well a ranking puts what is true above what is not."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpose.errors import SearchError


def auroc(scores: Float[Tensor, "units"], truth: Bool[Tensor, "truths"]) -> Float[Tensor, ""]:
    """The chance that a true unit has a higher score than one that is not, a tie counted as half.

    This is the area under the curve of the true against the false positive rate over all thresholds, with ties joined
    by straight lines (Hanley and McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747), computed from ranks.

    Args:
        scores: one number a unit, none of them NaN.
        truth: which units are true.

    Returns:
        The area, 0 to 1 in float64; .5 where the scores say nothing.

    Raises:
        SearchError: no unit is true, or all are; the two are not of one length; or a score is NaN.
    """
    if len(scores) != len(truth):
        raise SearchError(f"There are {len(scores)} scores and {len(truth)} truths; expected one truth for each score.")
    true = int(truth.sum())
    false = len(truth) - true
    if not true or not false:
        raise SearchError(
            f"An AUROC compares units that are true with units that are not, and {true} of {len(truth)} are true. "
            "Give a truth with at least one of each."
        )
    if bool(scores.isnan().any()):
        raise SearchError(f"{int(scores.isnan().sum())} scores are NaN and cannot be ranked.")
    _, place, ties = torch.unique(scores, sorted=True, return_inverse=True, return_counts=True)
    # The mean rank of each group of equal scores, from 1.
    ranks = ties.cumsum(0).double() - (ties - 1).double() / 2
    above = ranks[place][truth].sum() - true * (true + 1) / 2
    return above / (true * false)
