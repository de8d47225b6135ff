"""How much of the model's behaviour a circuit brings back."""

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.errors import SearchError

_SMALLEST = 1e-6


def faithfulness(
    circuit: Float[Tensor, "*#shape"] | float,
    full: Float[Tensor, "*#shape"] | float,
    empty: Float[Tensor, "*#shape"] | float,
) -> Float[Tensor, "*shape"]:
    """The share of the gap between the corrupted run and the whole model that a circuit closes.

    It is (m(C) - m(empty)) / (m(N) - m(empty)), of metrics already averaged over examples. Source: the
    MIB circuit track, https://arxiv.org/abs/2504.13151.

    Args:
        circuit: metric when only the circuit runs on the clean input.
        full: metric of the whole model on the clean input, m(N).
        empty: metric of the empty circuit, which is the model on the corrupted input.

    Returns:
        1 where the circuit does as the model does, 0 where it does as the corrupted run does; not bounded.

    Raises:
        SearchError: the whole model and the empty circuit have the same metric, so that nothing is there to explain.
    """
    circuit, full, empty = (torch.as_tensor(value) for value in (circuit, full, empty))
    span = full - empty
    scale = torch.maximum(full.abs(), empty.abs()).clamp(min=1.0)
    if bool((span.abs() <= _SMALLEST * scale).any()):
        both = full.expand_as(span)[span.abs() <= _SMALLEST * scale].flatten()
        raise SearchError(
            "Faithfulness is not defined: the whole model and the empty circuit (the corrupted run) have the same "
            f"metric, {float(both[0]):.4g}. Use a task that the model can do, and "
            "counterfactuals that change its answer."
        )
    return (circuit - empty) / span
