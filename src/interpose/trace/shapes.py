"""The shapes of values inside a block: told by the table, or found by running torch on tensors without data."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from interpose.engine.plan import place_of
from interpose.errors import GraphError, InterposeError, TraceError
from interpose.graph import Batch, Feed, Graph, Site
from interpose.graph.arguments import Ref, Steps
from interpose.graph.feed import Generation
from interpose.graph.nodes import Apply, Constant, Node, Read, Save, Skip, World, Write, references
from interpose.trace.lines import try_shapes, user_line
from interpose.trace.recorder import Recorder

if TYPE_CHECKING:
    from interpose.trace.model import Model

_WANTED = "wanted"
"""What the value is saved as; the block's own saves are left out."""


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
    if type(module) is torch.nn.LayerNorm and len(values) == 1 and not module._forward_hooks:
        wanted = torch.Size(module.normalized_shape)  # torch takes ten milliseconds to find that nothing changes
        if values[0].dtype == getattr(module.weight, "dtype", None) and values[0].shape[-len(wanted) :] == wanted:
            return torch.empty_like(values[0], device="meta")

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
        # The batch asked about last; replaced as a whole, so that threads cannot mix two.
        self._last: tuple[Batch | None, str, tuple[int, int, int, torch.dtype]] = (None, "", (0, 0, 0, torch.float32))
        self._found: dict[tuple[Graph, tuple[Any, ...]], torch.Tensor] = {}

    def of(self, site: Site, batch: Batch, steps: Steps | None = None) -> torch.Tensor | None:
        """The shape of a site on a batch.

        Args:
            site: any site.
            batch: the inputs of its world.
            steps: the steps of a generation that it is read at; where the prompt is one of them, the shape is its.

        Returns:
            a tensor without data; None for a module's own values, whose shape only a run can tell.

        Raises:
            SiteError: the model has no such site.
            TraceError: the batch holds no tokens.
        """
        if site.part:
            return None
        rows, length, kept, dtype = self._sizes(site, batch)
        if steps is not None and steps.start:
            if (site.axes or ()).count("P") > 1:
                return None  # as long as the cache by then
            length = 1
        key = site, rows, length, kept, dtype
        if key not in self._standard:
            self._standard[key] = self._made(*key)
        return self._standard[key]

    def _sizes(self, site: Site, batch: Batch) -> tuple[int, int, int, torch.dtype]:
        """Rows, positions, how many positions the logits are kept for (0: all), number type."""
        last, start, found = self._last
        given_as = self._model.table().given_as(site)
        if last is batch and start == given_as:
            return found
        kept = batch.kwargs.get("logits_to_keep", 0)
        rows, length = self._extent(site, batch, given_as)
        found = rows, length, kept if isinstance(kept, int) else 0, self._model.dtype
        self._last = batch, given_as, found
        return found

    def _extent(self, site: Site, batch: Batch, given_as: str) -> tuple[int, int]:
        """How many rows and positions a batch has."""
        table = self._model.table()
        images = table.reads == "pixels"
        names = ("pixel_values",) if images else (f"{given_as}input_ids", f"{given_as}inputs_embeds")
        given = next((batch.kwargs[name] for name in names if batch.kwargs.get(name) is not None), None)
        if given is None and given_as and batch.generation is not None:
            return self._extent(site, batch, "")[0], 1  # the token that the decoder begins with
        if given is None:
            wanted = "pixel_values" if images else f"{given_as}input_ids" if given_as else "token ids"
            raise TraceError(
                f"{user_line()}: {site} needs {wanted}; this world was given "
                f"{sorted(batch.kwargs) or 'positional inputs'}."
            )
        length = table.positions(self._model.config, *given.shape[-2:]) if images else given.shape[1]
        return given.shape[0], length

    def _made(self, site: Site, rows: int, length: int, kept: int, dtype: torch.dtype) -> torch.Tensor:
        dims = self._model.sizes()
        try:
            place_of(site, self._model.family, dims)
        except GraphError as error:
            raise type(error)(f"{user_line()}: {error}") from None
        if site.name == "logits" and kept:
            length = min(length, kept)
        sizes = {"B": rows, "P": length, "H": dims.heads, "K": dims.kv_heads, "D": dims.head_width}
        sizes |= {"M": dims.width, "F": dims.neurons, "V": dims.vocab}
        axes = self._model.table().logit_axes.split() if site.name == "logits" else site.axes or ()
        return torch.empty([sizes[axis] for axis in axes], dtype=dtype, device="meta")

    def of_value(self, recorder: Recorder, worlds: tuple[World, ...], feed: Feed, ref: Ref) -> torch.Tensor:
        """The shape of a value that is made in a block; found once for each value and shapes of its feed.

        The model runs without data. Only what the value rests on is run: nothing is said, and no function of the
        program is called.

        Args:
            recorder: the nodes of the block.
            worlds: the block's worlds.
            feed: their inputs, and the tensors that the block captured.
            ref: the value.

        Returns:
            a tensor without data.

        Raises:
            TraceError: the model cannot run without data, or the value is no tensor.
        """
        graph, made = _only(recorder, worlds, ref)
        given = {name: torch.empty_like(like, device=self._model.device) for name, like in made.items()}
        feed = feed.with_(_short(graph, feed), **given)
        key = graph, shapes_of(feed)
        if key not in self._found:
            self._found[key] = _shape_of_saved(self._model.backend, graph, feed, ref.index in recorder.stepped)
        return self._found[key]


def _only(recorder: Recorder, worlds: tuple[World, ...], ref: Ref) -> tuple[Graph, dict[str, torch.Tensor]]:
    """What a value rests on, with every other node left empty, saved under a name; and the tensors for functions."""
    changes: dict[str, list[int]] = defaultdict(list)
    for index, node in enumerate(recorder.nodes):
        if isinstance(node, Write | Skip):
            changes[node.world].append(index)
    kept: dict[int, Node] = {}
    made: dict[str, torch.Tensor] = {}
    stack = [ref.index]
    while stack:
        index = stack.pop()
        if index in kept:
            continue
        kept[index] = node = recorder.nodes[index]
        if isinstance(node, Apply):
            name = f"like {index}"
            made[name], kept[index] = _like(recorder, index), Constant(ref=name)
            continue
        stack += [used.index for used in references(node)]
        stack += changes[node.world] if isinstance(node, Read) else ()
    nodes = [kept.get(index, Constant(ref="")) for index in range(len(recorder.nodes))]
    return Graph(worlds, (*nodes, Save(name=_WANTED, value=ref))), made


def _like(recorder: Recorder, index: int) -> torch.Tensor:
    found = recorder.likes.get(index)
    if found is None:
        raise TraceError(
            f"{user_line()}: the shape of what a function gives is not known in the block, and is needed here: give "
            f"t.apply(..., like=...) at {recorder.nodes[index].at} a value of that shape."
        )
    return found


def _short(graph: Graph, feed: Feed) -> dict[str, Batch]:
    """The worlds that are generations, up to the last step that a node starts at; no token is looked at."""
    last = max((steps.start for node in graph.nodes if (steps := getattr(node, "steps", None)) is not None), default=0)
    found = {}
    for name, batch in feed.worlds.items():
        if batch.generation is not None:
            count = min(batch.generation.max_new_tokens, last + 1)
            kwargs = {key: value for key, value in batch.kwargs.items() if key != "attention_mask"}
            found[name] = replace(batch, kwargs=kwargs, generation=Generation(count, start=batch.generation.start))
    return found


def _shape_of_saved(backend: Any, graph: Graph, feed: Feed, stepped: bool) -> torch.Tensor:
    """The shape of the value that a graph saves as `_WANTED`, as a tensor without data; of several steps, the first's.

    Raises:
        TraceError: the model cannot run without data, or the value is no tensor.
    """
    try:
        with _without_data():
            found = next(backend.run_many([graph], [feed]))[_WANTED]
            found = found[0] if stepped else found
    except Exception as error:  # whatever the module raises where it looks at numbers
        why = error if isinstance(error, InterposeError) else f"{type(error).__name__}, run without data"
        raise TraceError(
            f"{user_line()}: the shape of this value is needed here and is not known before the model runs ({why}). "
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
