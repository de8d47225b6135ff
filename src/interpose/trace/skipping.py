"""Skipping a module: what stands for its result."""

from typing import Any

import torch

from interpose.errors import TraceError
from interpose.graph.nodes import Read, Skip, Write
from interpose.graph.sites import Site, shared
from interpose.trace.lines import user_line
from interpose.trace.operations import record
from interpose.trace.proxy import Proxy
from interpose.trace.writing import check_site, site_value


def _check_untouched(trace: Any, site: Site) -> None:
    """A module is left out as a whole, so what is said of its output stands below the skip.

    Raises:
        TraceError: the site was read, written or skipped above.
    """
    world, steps = trace.worlds.open, trace.recorder.steps
    for node in trace.recorder.nodes:
        same = isinstance(node, Read | Write | Skip) and node.site == site and node.world == world
        if same and (steps is None or steps.meets(node.steps)):
            raise TraceError(
                f"{user_line()}: {site} has been read, written or skipped above ({node.at}), and a module that is "
                "skipped is never run. Write the skip first, and read or write the site below it."
            )


def stand_in(trace: Any, site: Site, value: Any, shape: torch.Tensor | None) -> Proxy:
    """What a skipped module's site carries.

    Args:
        trace: the block.
        site: the `output` of a layer, of its attention or MLP, or of any module.
        value: what the user gave: a value of the block, a tensor, a number, or None.
        shape: a tensor of the site's shape, where it is known.

    Returns:
        a value of the block: where None was given, a layer's input, and nothing (zeros) for an attention or MLP.

    Raises:
        TraceError: None was given for a module without a table's name.
        ShapeError: the value does not fit.
    """
    _check_untouched(trace, site)
    if site.part:
        if value is None:
            raise TraceError(f"{user_line()}: {site} has no value of its own to pass on; write .skip(value).")
        return value if isinstance(value, Proxy) else site_value(trace, value, trace.model.dtype)
    if isinstance(value, Proxy) and (value._shape_of is None or shape is None or value.shape == shape.shape):
        cast: Any = value if value._shape_of is None or shape is None else value.to(shape.dtype)
        return cast
    stream = trace.read(shared(site.name.removesuffix(site.local) + "input"))
    if value is None and site.local == "output":
        return stream
    nothing = record(trace, "zeros_like", torch.zeros_like, (stream,), {})
    if value is None:
        return nothing
    given = value if isinstance(value, Proxy) else site_value(trace, value, trace.model.dtype)
    if shape is not None and given._shape_of is not None:
        check_site(site, shape, given._shape_of, fixed="")
    filled: Any = (nothing + given).to(stream.dtype)
    return filled
