"""Which direction of the residual stream the behaviour reads, once the final norm's denominator is fixed.

With its denominator fixed, a norm is linear: it takes the mean away (LayerNorm) or not (RMSNorm), multiplies by its
gain and by one number a position. All of that is found by applying the stock norm to a few vectors, so that no family
has to say which kind it has. The unembedding is linear too; its slope at zero is taken, where a cap on the
logits does nothing.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.tasks.base import Pairs
from interpose.trace import Model
from interpose.trace.gradient import grad

_FITS = 1e-3
"""How much of what the norm gives, at most, may be left over by the linear map."""


class _Norm(NamedTuple):
    """What the final norm gives.

    Attributes:
        zeros: of nothing; its bias.
        ones: of the same number everywhere.
        probe: what it was given to find its gain.
        of_probe: what it gave.
    """

    zeros: Float[Tensor, " width"]
    ones: Float[Tensor, " width"]
    probe: Float[Tensor, " width"]
    of_probe: Float[Tensor, " width"]


def directions(model: Model, pairs: Pairs, stream: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
    """What moves logit(answer) - logit(wrong) when it is written to the stream at the last position.

    Args:
        model: the model.
        pairs: whose answers are compared.
        stream: the stream that the final norm reads at the last position.

    Returns:
        a direction a pair: its product with what a part writes is that part's direct contribution.

    Raises:
        SearchError: the final norm is neither a LayerNorm nor an RMSNorm.
    """
    slope = _slope(model, pairs, stream)
    if model.table().final_norm is None:
        return slope
    norm, given = _normed(model, stream)
    bias = norm.zeros
    centred = bool(torch.equal(norm.ones, bias))
    gain = (norm.of_probe - bias) / norm.probe
    read = gain * (stream - stream.mean(-1, keepdim=True) if centred else stream)
    scale = ((given - bias) * read).sum(-1, keepdim=True) / (read * read).sum(-1, keepdim=True)
    left = (given - bias - scale * read).norm() / (given - bias).norm()
    if not left < _FITS:
        raise SearchError(
            "The final norm of this model is neither a LayerNorm nor an RMSNorm: with its denominator fixed, a linear "
            f"map leaves {float(left):.1%} of what it gives unexplained. Use ActivationPatching() instead."
        )
    found = scale * gain * slope
    return found - found.mean(-1, keepdim=True) if centred else found


def _slope(model: Model, pairs: Pairs, stream: Tensor) -> Float[Tensor, "n width"]:
    """How logit(answer) - logit(wrong) rises with what the unembedding is given."""
    with model.trace(run=False) as t:
        normed = t.input("normed", torch.zeros_like(stream, dtype=model.dtype))
        answers, wrong = t.input("answers", pairs.answers), t.input("wrong", pairs.wrong)
        logits = model.call.unembed(normed)
        difference = logits.gather(1, answers.unsqueeze(1)) - logits.gather(1, wrong.unsqueeze(1))
        grad(difference.sum(), normed).save("slope")
    return next(model.backend.run_many([t.graph], [t.feed]))["slope"].double()


def _normed(model: Model, stream: Tensor) -> tuple[_Norm, Float[Tensor, "n width"]]:
    """What the final norm gives of a few vectors, and of the stream."""
    width = stream.shape[-1]
    probe = torch.ones(width, dtype=model.dtype, device=stream.device)
    probe[1::2] = -1
    if width % 2:
        probe[-1] = -2
        probe[-2:-1] = 1
    made = torch.stack([torch.zeros_like(probe), torch.ones_like(probe), probe])
    with model.trace(run=False) as t:
        vectors = t.input("vectors", torch.cat([made, stream.to(model.dtype)]))
        model.call.norm(vectors).save("normed")
    normed = next(model.backend.run_many([t.graph], [t.feed]))["normed"].double()
    return _Norm(normed[0], normed[1], probe.double(), normed[2]), normed[3:]
