"""The shapes of values inside a block: told by the table, or found by running torch on tensors without data."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from interpose.engine.plan import place_of
from interpose.errors import InterposeError, TraceError
from interpose.graph import Batch, Feed, Graph, Site
from interpose.trace.lines import try_shapes, user_line

if TYPE_CHECKING:
    from interpose.trace.model import Model


@contextmanager
def _without_data() -> Iterator[FakeTensorMode]:
    # torch reports a misfit on stderr as well as by the exception; the exception is enough.
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield mode
    finally:
        logger.setLevel(level)


def shape_of_call(
    module: torch.nn.Module, path: str, values: list[torch.Tensor], device: torch.device
) -> torch.Tensor | None:
    """The shape of what a module gives for inputs of known shapes.

    Args:
        module: the module.
        path: its path, for messages.
        values: tensors of the inputs' shapes and types.
        device: where the module is.

    Returns:
        a tensor without data; None where the module gives something else than one tensor.

    Raises:
        ShapeError: the module does not take such inputs; the message starts with the user's line.
    """

    def call() -> Any:
        return module(*(torch.empty(value.shape, dtype=value.dtype, device=device) for value in values))

    with _without_data(), torch.no_grad():
        found = try_shapes(call, (), {}, f"calling {path}")
    return torch.empty(found.shape, dtype=found.dtype, device="meta") if isinstance(found, torch.Tensor) else None


@final
class Shapes:
    """The shapes of one model's sites: of standard ones by the table, of others by running the model without data.

    Args:
        model: the model.
    """

    def __init__(self, model: "Model") -> None:
        """Nothing is known yet."""
        self._model = model
        self._standard: dict[tuple[Any, ...], torch.Tensor] = {}
        self._found: dict[tuple[Graph, tuple[Any, ...]], torch.Tensor] = {}

    def of(self, site: Site, batch: Batch) -> torch.Tensor | None:
        """The shape of a site on a batch.

        Args:
            site: any site.
            batch: the inputs of its world.

        Returns:
            a tensor without data; None for a module's own values, whose shape only a run can tell.

        Raises:
            SiteError: the model has no such site.
            TraceError: the batch holds no tokens.
        """
        if site.part:
            return None
        self._model.table()
        start = "decoder_" if self._model.decodes(site) else ""
        given = batch.kwargs.get(f"{start}input_ids", batch.kwargs.get(f"{start}inputs_embeds"))
        if given is None:
            raise TraceError(
                f"{user_line()}: {site} needs {'decoder_input_ids' if start else 'token ids'}; this world was given "
                f"{sorted(batch.kwargs) or 'positional inputs'}."
            )
        kept = batch.kwargs.get("logits_to_keep", 0)
        key = site, given.shape[:2], kept if isinstance(kept, int) else 0, self._model.dtype
        if key not in self._standard:
            self._standard[key] = self._made(*key)
        return self._standard[key]

    def _made(self, site: Site, given: torch.Size, kept: int, dtype: torch.dtype) -> torch.Tensor:
        dims, (rows, length) = self._model.sizes(), given
        place_of(site, self._model.family, dims)
        if site.name == "logits" and kept:
            length = min(length, kept)
        sizes = {"B": rows, "P": length, "H": dims.heads, "K": dims.kv_heads, "D": dims.head_width}
        sizes |= {"M": dims.width, "F": dims.neurons, "V": dims.vocab}
        return torch.empty([sizes[axis] for axis in site.axes or ()], dtype=dtype, device="meta")

    def of_saved(self, graph: Graph, feed: Feed) -> torch.Tensor:
        """The shape of the value that a graph saves as `wanted`; found once for each graph and shapes of its feed.

        Args:
            graph: a graph.
            feed: its inputs.

        Returns:
            a tensor without data.

        Raises:
            TraceError: the model cannot run without data, or the value is no tensor.
        """
        key = graph, shapes_of(feed)
        if key not in self._found:
            self._found[key] = _shape_of_saved(self._model.backend, graph, feed)
        return self._found[key]


def _shape_of_saved(backend: Any, graph: Graph, feed: Feed) -> torch.Tensor:
    """The shape of the value that a graph saves as `wanted`, as a tensor without data.

    Raises:
        TraceError: the model cannot run without data, or the value is no tensor.
    """
    try:
        with _without_data():
            found = next(backend.run_many([graph], [feed]))["wanted"]
    except InterposeError as error:
        raise TraceError(
            f"{user_line()}: the shape of this value is needed here and is not known before the model runs ({error}). "
            "Save it and look at it after the block."
        ) from error
    if not isinstance(found, torch.Tensor):
        raise TraceError(
            f"{user_line()}: this module returns a {type(found).__name__}, not one tensor; take an element of it "
            "first ([0])."
        )
    return torch.empty(found.shape, dtype=found.dtype, device="meta")


def shapes_of(feed: Feed) -> tuple[Any, ...]:
    """The shapes and types of everything in a feed; two feeds for which it is equal give equal shapes everywhere."""
    found: list[Any] = []
    stack: list[Any] = [feed.tensors, *((world, batch.args, batch.kwargs) for world, batch in feed.worlds.items())]
    while stack:
        value = stack.pop()
        if isinstance(value, torch.Tensor):
            found.append((tuple(value.shape), value.dtype))
        elif isinstance(value, Mapping):
            stack.extend(value.items())
        elif isinstance(value, tuple | list):
            stack.extend(value)
        else:
            found.append(repr(value))
    return tuple(found)
