"""`ip.grad`: a derivative as a value of the block."""

from typing import Any

from interpose.errors import TraceError
from interpose.graph.nodes import Gradient
from interpose.trace.lines import user_line
from interpose.trace.proxy import Proxy


def grad(of: Any, wrt: Any) -> Any:
    """The gradient of a number with respect to a value, both of the same block; usable inside the graph too.

    Args:
        of: a single number, such as `model.logits[:, -1, 42].sum()`.
        wrt: a value that the number depends on, such as `model.layers[5].output`.

    Returns:
        the gradient, of the shape of `wrt`.

    Raises:
        TraceError: one of them is no value of a block.

    Example:
        ```python
        with model.trace("one prompt") as t:
            h = model.layers[5].output
            g = ip.grad(model.logits[:, -1, 42].sum(), h).save()
        ```
    """
    for value in (of, wrt):
        if not isinstance(value, Proxy):
            raise TraceError(
                f"{user_line()}: ip.grad(y, x) takes two values of one with-block; for plain tensors use "
                "torch.autograd.grad."
            )
    if of._shape_of is not None and of._shape_of.numel() != 1:
        raise TraceError(
            f"{user_line()}: ip.grad needs a single number, not shape {tuple(of._shape_of.shape)}. Sum it or index it."
        )
    trace = of._trace
    if trace.recorder.steps is not None:
        raise TraceError(
            f"{user_line()}: no gradients pass through a generation. Generate first, then trace the text with what it "
            "gave."
        )
    ref = trace.recorder.add(Gradient(of=of.ref_in(trace.recorder), wrt=wrt.ref_in(trace.recorder)))
    return Proxy.make(trace, ref, wrt._shape_of)
