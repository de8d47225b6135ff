"""The with-block: a program about a model that has not run yet."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

import torch

from interpose.errors import ShapeError, TraceError
from interpose.graph import Batch, Feed, Graph, World
from interpose.graph.nodes import Call, Gradient, Input, Read, Ref, Save, Write
from interpose.graph.sites import Site
from interpose.trace.positions import place_index
from interpose.trace.proxy import Origin, Proxy, become, known_shape
from interpose.trace.recorder import Recorder, user_line

if TYPE_CHECKING:
    from interpose.trace.model import Model


@final
class Trace:
    """What is written inside the block is recorded; it runs when the block ends.

    Attributes:
        saved: the values saved by name, after the block.
        graph: the recorded graph, after the block.
        feed: the inputs and captured tensors that went with it, after the block.

    Args:
        model: the model.
        batch: what the world `main` is given; None opens no world.
        run: run when the block ends; False only records.
    """

    def __init__(self, model: "Model", batch: Batch | None, run: bool) -> None:
        """Nothing is recorded before the block is entered."""
        self.model, self.device = model, model.device
        self.recorder = Recorder(model.weight_paths)
        self.saved: dict[str, Any] = {}
        self._run, self._first = run, batch
        self._worlds: dict[str, World] = {}
        self._batches: dict[str, Batch] = {}
        self._world: str | None = None
        self._saves: list[tuple[Proxy, str]] = []
        self._last_writes: dict[tuple[Site, str], Ref] = {}

    def __enter__(self) -> "Trace":
        """Open the block."""
        self._token = self.model.open(self)
        if self._first is not None:
            self._open_world("main", self._first, None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close the block and run what it says, unless it raised."""
        self.model.close(self._token)
        self.recorder.open = False
        if kind is not None:
            return
        self.graph = Graph(tuple(self._worlds.values()), tuple(self.recorder.nodes))
        self.feed = Feed(dict(self._batches), dict(self.recorder.constants))
        if not self._run:
            return
        for result in self.model.backend.run_many([self.graph], [self.feed]):
            self.saved = result
        for proxy, name in self._saves:
            if isinstance(proxy, Proxy) and "_trace" in proxy.__dict__:
                become(proxy, self.saved[name])

    @contextmanager
    def world(self, name: str, *inputs: Any, base: str | None = None, **kwargs: Any) -> Iterator[None]:
        """Open a named world: one call of the model on these inputs.

        Args:
            name: how it is called in the graph.
            *inputs: a prompt, a list of prompts, a `Batch`, or what the module is called with.
            base: the world it is a variation of, if any.
            **kwargs: further arguments of the module.
        """
        if self._world is not None:
            raise TraceError(
                f"{user_line()}: the world {name!r} is opened inside the world {self._world!r}. "
                "Close one before the next; values read in one can be written in another."
            )
        if name in self._worlds:
            raise TraceError(f"{user_line()}: there already is a world named {name!r}. A world is one call; name this one anew.")
        if base is not None and base not in self._worlds:
            raise TraceError(f"{user_line()}: the base {base!r} of the world {name!r} is no world of this block.")
        self._open_world(name, self.model.batch(*inputs, **kwargs), base)
        try:
            yield
        finally:
            self._world = None

    def input(self, name: str, like: Any, trainable: bool = False) -> Any:
        """A tensor that each run's feed gives anew.

        Args:
            name: its name in the feed.
            like: a tensor of the shape and type it will have.
            trainable: it may be optimised.

        Returns:
            a value of the block.
        """
        ref = self.recorder.add(Input(name=name, trainable=trainable))
        self.recorder.constants[name] = like
        return Proxy.make(self, ref, torch.empty_like(like, device="meta"))

    def weight(self, path: str) -> Any:
        """A parameter or buffer of the model, by path, as a value of the block."""
        return self.call_weight(self.model.weight_at(path))

    def call_weight(self, weight: torch.Tensor) -> Any:
        """A weight of the model as a value of the block."""
        return Proxy.make(self, self.recorder.constant(weight), torch.empty_like(weight, device="meta"))

    def read(self, site: Site) -> Any:
        """Record a read of a site in the open world."""
        world = self._open_name(site)
        shape = self.model.shape_of(site, self._batches[world])
        ref = self.recorder.add(Read(site=site, world=world))
        return Proxy.make(self, ref, shape, Origin(site=site, world=world))

    def write(self, site: Site, value: Any) -> None:
        """Record `site = value` in the open world."""
        world = self._open_name(site)
        if isinstance(value, Proxy) and self._last_writes.get((site, world)) == value._ref:
            return  # `site += v` hands the changed value back to the site it has already been written to
        shape = self.model.shape_of(site, self._batches[world])
        if not isinstance(value, Proxy):
            value = self._as_value(value, shape)
        elif shape is not None and value._shape_of is not None:
            self._check_shape(site, shape, known_shape(value))
        self.note_write(site, world, value.ref_in(self.recorder))

    def _as_value(self, value: Any, shape: torch.Tensor | None) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = torch.tensor(float(value), dtype=shape.dtype if shape is not None else self.model.dtype)
        if not isinstance(value, torch.Tensor):
            raise TraceError(f"{user_line()}: a site takes a tensor or a number, not a {type(value).__name__}.")
        return Proxy.make(self, self.recorder.constant(value), torch.empty_like(value, device="meta"))

    def _check_shape(self, site: Site, shape: torch.Tensor, value: torch.Tensor) -> None:
        wider = site.local in ("attn.k", "attn.v", "attn.key", "attn.value") and value.ndim == 4
        try:
            fits = torch.broadcast_shapes(value.shape, shape.shape) == shape.shape
        except RuntimeError:
            fits = False
        if not (fits or wider):
            raise ShapeError(
                f"{user_line()}: {site} has shape {tuple(shape.shape)} and cannot take a value of shape {tuple(value.shape)}."
            )

    def call(self, path: str, values: tuple[Any, ...]) -> Any:
        """Record a call of one of the model's own modules."""
        module = self.model.module_at(path)
        refs = tuple(self.recorder.encode(value) for value in values)
        ref = self.recorder.add(Call(module=path, args=refs))
        if any(isinstance(value, Proxy) and value._shape_of is None for value in values):
            return Proxy.make(self, ref, None)
        return Proxy.make(self, ref, self.model.shape_of_call(module, [known_shape(value) for value in values]))

    def grad(self, of: Proxy, wrt: Proxy) -> Any:
        """Record a derivative."""
        ref = self.recorder.add(Gradient(of=of.ref_in(self.recorder), wrt=wrt.ref_in(self.recorder)))
        return Proxy.make(self, ref, wrt._shape_of)

    def note_save(self, proxy: Proxy, name: str | None) -> None:
        """Record that a value is wanted after the block."""
        name = name if name is not None else f"saved{len(self._saves)}"
        if any(taken == name for _, taken in self._saves):
            raise TraceError(f"{user_line()}: a value is already saved as {name!r} in this block. Choose another name.")
        self.recorder.add(Save(name=name, value=proxy.ref_in(self.recorder)))
        self._saves.append((proxy, name))

    def note_write(self, site: Site, world: str, value: Ref) -> None:
        """Record that a site carries a value from here on."""
        self.recorder.add(Write(site=site, world=world, value=value))
        self._last_writes[site, world] = value

    def place_index(self, proxy: Proxy, index: Any) -> Any:
        """An index as it is meant on left-padded batches; see `interpose.trace.positions`."""
        origin = proxy._origin
        if origin is None or origin.site is None or origin.site.axes is None:
            return index
        return place_index(index, origin.site, self._batches[origin.world])

    def find_shape(self, ref: Ref) -> torch.Tensor:
        """The shape of a value that no table tells: the model runs once, without data."""
        graph = Graph(tuple(self._worlds.values()), (*self.recorder.nodes, Save(name="wanted", value=ref)))
        return self.model.dry_run(graph, Feed(dict(self._batches), dict(self.recorder.constants)))

    def _open_world(self, name: str, batch: Batch, base: str | None) -> None:
        self._worlds[name], self._batches[name], self._world = World(name, base), batch, name

    def _open_name(self, site: Site) -> str:
        if self._world is None:
            raise TraceError(
                f"{user_line()}: {site} belongs to a world, and none is open here. Write\n"
                f'    with t.world("clean", prompt):\n        ... {site} ...\n'
                "or give the prompt to trace(...) itself."
            )
        return self._world


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
            raise TraceError("ip.grad(y, x) takes two values of one with-block; for plain tensors use torch.autograd.grad.")
    if of._shape_of is not None and of._shape_of.numel() != 1:
        raise TraceError(
            f"{user_line()}: ip.grad needs a single number, not shape {tuple(of._shape_of.shape)}. Sum it or index it."
        )
    return of._trace.grad(of, wrt)


