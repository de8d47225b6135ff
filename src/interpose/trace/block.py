"""The with-block: a program about a model that has not run yet."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

import torch

from interpose.errors import TraceError
from interpose.graph import Batch, Feed, Graph, World
from interpose.graph.nodes import Call, Gradient, Input, Read, Ref, Save, Write
from interpose.graph.sites import Site
from interpose.trace.dispatch import answer
from interpose.trace.kept import become
from interpose.trace.lines import user_line
from interpose.trace.positions import Padding, place_index
from interpose.trace.proxy import Origin, Proxy, known_shape
from interpose.trace.recorder import Recorder
from interpose.trace.shapes import shape_of_call
from interpose.trace.weights import weight_at, weight_paths
from interpose.trace.writing import check_site, site_value

if TYPE_CHECKING:
    from interpose.trace.model import Model


@dataclass
class _Held:
    """What a site holds, as far as the block has written.

    Attributes:
        generation: how often it was given another value.
        last: the value written last.
        in_place: the value as it was last changed in place, if it was since.
    """

    generation: int = 0
    last: Ref | None = None
    in_place: Ref | None = None


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
        self.recorder = Recorder(lambda: weight_paths(model.network))
        self.saved: dict[str, Any] = {}
        self._run, self._first = run, batch
        self._worlds: dict[str, World] = {}
        self._batches: dict[str, Batch] = {}
        self._paddings: dict[tuple[str, bool], Padding | None] = {}
        self._world: str | None = None
        self._saves: dict[str, Proxy] = {}
        self._held: dict[tuple[Site, str], _Held] = {}

    def __enter__(self) -> "Trace":
        """Open the block."""
        if not self.recorder.open:
            raise TraceError(f"{user_line()}: this block has been used. Open another: with model.trace(...) as t:")
        self._token = self.model.open(self)
        if self._first is not None:
            self._open_world("main", self._first, None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close the block and run what it says, unless it raised."""
        self.model.close(self._token)
        self.recorder.open, self.recorder.failed = False, True
        if kind is not None:
            return
        self.graph = Graph(tuple(self._worlds.values()), tuple(self.recorder.nodes))
        self.feed = Feed(dict(self._batches), dict(self.recorder.constants))
        if self._run:
            self.saved = next(iter(self.model.backend.run_many([self.graph], [self.feed])))
            for name, proxy in self._saves.items():
                if "_trace" in proxy.__dict__:  # one saved under two names has become its tensor already
                    become(proxy, self.saved[name])
        self.recorder.failed = False

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
            raise TraceError(
                f"{user_line()}: there already is a world named {name!r}. A world is one call; name this one anew."
            )
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
        if name in self.recorder.constants:
            raise TraceError(
                f"{user_line()}: the feed of this block already has a tensor named {name!r}. Choose another name."
            )
        ref = self.recorder.add(Input(name=name, trainable=trainable))
        self.recorder.constants[name] = like
        return Proxy.make(self, ref, torch.empty_like(like, device="meta"))

    def weight(self, path: str) -> Any:
        """A parameter or buffer of the model, by path, as a value of the block."""
        weight = weight_at(self.model, path)
        return Proxy.make(self, self.recorder.constant(weight), torch.empty_like(weight, device="meta"))

    def read(self, site: Site) -> Any:
        """Record a read of a site in the open world."""
        world = self._open_name(site)
        shape = self.model.shapes.of(site, self._batches[world])
        ref = self.recorder.add(Read(site=site, world=world))
        held = self._held.get((site, world))
        generation = held.generation if held is not None else 0
        return Proxy.make(self, ref, shape, Origin(site=site, world=world, generation=generation))

    def write(self, site: Site, value: Any) -> None:
        """Record `site = value` in the open world."""
        world = self._open_name(site)
        shape = self.model.shapes.of(site, self._batches[world])
        if not isinstance(value, Proxy):
            value = site_value(self, value, self.model.dtype if shape is None else shape.dtype)
        ref, held = value.ref_in(self.recorder), self._held.get((site, world))
        if held is not None and held.last == ref:
            return  # `site += v` hands the changed value back to the site it has already been written to
        if shape is not None and value._shape_of is not None:
            check_site(site, shape, value._shape_of, self.model.table().wide_key_norm)
        self.note_write(site, world, ref)

    def call(self, path: str, values: tuple[Any, ...]) -> Any:
        """Record a call of one of the model's own modules."""
        module = self.model.module_at(path)
        others = [type(value).__name__ for value in values if not isinstance(value, torch.Tensor)]
        if others or not values:
            raise TraceError(
                f"{user_line()}: call.module({path!r}, ...) takes tensors, not {', '.join(others) or 'nothing'}."
            )
        refs = tuple(self.recorder.encode(value) for value in values)
        ref = self.recorder.add(Call(module=path, args=refs))
        if any(isinstance(value, Proxy) and value._shape_of is None for value in values):
            return Proxy.make(self, ref, None)
        return Proxy.make(self, ref, shape_of_call(module, path, [known_shape(value) for value in values], self.device))

    def grad(self, of: Proxy, wrt: Proxy) -> Any:
        """Record a derivative."""
        ref = self.recorder.add(Gradient(of=of.ref_in(self.recorder), wrt=wrt.ref_in(self.recorder)))
        return Proxy.make(self, ref, wrt._shape_of)

    def answer(self, proxy: Proxy, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What torch was asked to do to a value of this block; see `interpose.trace.dispatch`."""
        return answer(proxy, func, args, kwargs)

    def note_save(self, proxy: Proxy, name: str | None) -> None:
        """Record that a value is wanted after the block."""
        if name is None:
            name = next(free for i in count(len(self._saves)) if (free := f"saved{i}") not in self._saves)
        if name in self._saves:
            raise TraceError(f"{user_line()}: a value is already saved as {name!r} in this block. Choose another name.")
        self.recorder.add(Save(name=name, value=proxy.ref_in(self.recorder)))
        self._saves[name] = proxy

    def note_write(self, site: Site, world: str, value: Ref, in_place: bool = False) -> None:
        """Record that a site carries a value from here on.

        Args:
            site: the site.
            world: its world.
            value: the value.
            in_place: it is the site's own value, changed; else another in its place.
        """
        self.recorder.add(Write(site=site, world=world, value=value))
        held = self._held.setdefault((site, world), _Held())
        held.last, held.in_place = value, value if in_place else None
        held.generation += not in_place

    def value_in_place(self, origin: Origin) -> Ref | None:
        """The value of a site as it was last changed in place; None where it still is what was read.

        Raises:
            TraceError: the site was given another value since it was read.
        """
        assert origin.site is not None
        held = self._held.get((origin.site, origin.world), _Held())
        if held.generation != origin.generation:
            raise TraceError(
                f"{user_line()}: {origin.site} has been given another value since this one was read from it, so "
                "changing this "
                "one would change nothing. Read the site again."
            )
        return held.in_place

    def place_index(self, value: Any, index: Any) -> tuple[Any, Any]:
        """An index as it is meant on left-padded batches; see `interpose.trace.positions`."""
        origin = value._origin if isinstance(value, Proxy) else None
        if origin is None or origin.site is None or value._shape_of is None:
            return None, index
        decodes = self.model.decodes(origin.site)
        if (origin.world, decodes) not in self._paddings:
            self._paddings[origin.world, decodes] = Padding.of(self._batches[origin.world], decodes)
        return place_index(index, origin.site, self._paddings[origin.world, decodes], value._shape_of.shape)

    def find_shape(self, ref: Ref) -> torch.Tensor:
        """The shape of a value that no table tells: the model runs once, without data."""
        graph = Graph(tuple(self._worlds.values()), (*self.recorder.nodes, Save(name="wanted", value=ref)))
        return self.model.shapes.of_saved(graph, Feed(dict(self._batches), dict(self.recorder.constants)))

    def _open_world(self, name: str, batch: Batch, base: str | None) -> None:
        self._worlds[name] = World(name, base, at=user_line())
        self._batches[name], self._world = batch, name

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
            raise TraceError(
                f"{user_line()}: ip.grad(y, x) takes two values of one with-block; for plain tensors use "
                "torch.autograd.grad."
            )
    if of._shape_of is not None and of._shape_of.numel() != 1:
        raise TraceError(
            f"{user_line()}: ip.grad needs a single number, not shape {tuple(of._shape_of.shape)}. Sum it or index it."
        )
    return of._trace.grad(of, wrt)
