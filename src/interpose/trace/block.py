"""The with-block: a program about a model that has not run yet."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

import torch

from interpose.errors import TraceError
from interpose.graph import Batch, Feed, Graph, markup
from interpose.graph.arguments import Ref, Steps
from interpose.graph.nodes import Call, Input, Log, Read, Save, Skip, Stop, Write
from interpose.graph.sites import NEW_TOKENS, Site, shared
from interpose.trace.dispatch import answer
from interpose.trace.elsewhere import of_block
from interpose.trace.generating import check_save, texts_of, the_generation
from interpose.trace.held import Held
from interpose.trace.kept import become
from interpose.trace.lines import user_line
from interpose.trace.opened import Worlds
from interpose.trace.operations import index
from interpose.trace.proxy import Origin, Proxy, known_shape
from interpose.trace.recorder import Recorder
from interpose.trace.shapes import shape_of_call
from interpose.trace.skipping import stand_in
from interpose.trace.weights import weight_at
from interpose.trace.writing import check_site, set_index, site_value

if TYPE_CHECKING:
    from interpose.trace.model import Model


@final
class Trace:
    """What is written inside the block is recorded; it runs when the block ends.

    Attributes:
        saved: the values saved by name, after the block.
        graph: the recorded graph, after the block.
        feed: the inputs and captured tensors that went with it, after the block.
        recorder: the nodes written so far.
        worlds: the worlds opened so far.
        held: what the sites hold so far.

    Args:
        model: the model.
        batch: what the world `main` is given; None opens no world.
        run: run when the block ends; False only records.
    """

    def __init__(self, model: "Model", batch: Batch | None, run: bool) -> None:
        """Nothing is recorded before the block is entered."""
        self.model, self.device = model, model.device
        self.recorder = Recorder(model)
        self.saved: dict[str, Any] = {}
        self._run, self._first = run, batch
        self.worlds = Worlds(self.recorder)
        self._saves: dict[str, Proxy] = {}
        self.held = Held()

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
        self.graph = Graph.recorded(tuple(self.worlds.all.values()), tuple(self.recorder.nodes))
        self.feed = Feed(dict(self.worlds.batches), dict(self.recorder.constants), self.graph)
        if self._run:
            self.saved = next(iter(self.model.backend.run_many([self.graph], [self.feed])))
            for name, proxy in self._saves.items():
                if "_trace" in proxy.__dict__:  # one saved under two names has become its tensor already
                    become(proxy, self.saved[name])
        self.recorder.failed = False

    @property
    def tokens(self) -> torch.Tensor:
        """The token ids that the block's generation chose [prompt, step], after the block."""
        return self.saved[f"{the_generation(self.worlds.batches, self.saved)}.tokens"]

    @property
    def texts(self) -> list[str]:
        """The new text of each prompt, after the block."""
        batch = self.worlds.batches[the_generation(self.worlds.batches, self.saved)]
        return texts_of(self.model, self.tokens, batch.generation.stop if batch.generation else ())

    @property
    def text(self) -> str:
        """The new text, after the block, where there was one prompt."""
        found = self.texts
        if len(found) != 1:
            raise TraceError(f"{user_line()}: there were {len(found)} prompts; t.texts has the new text of each.")
        return found[0]

    def __getattr__(self, name: str) -> Any:
        """Refused, with what to write for what blocks of other libraries have."""
        return of_block(name)

    def _repr_html_(self) -> str:
        graph = getattr(self, "graph", None)
        if graph is None:
            return markup.title(f"a block of {self.model.info.name} that has not ended")
        return markup.title(f"a block of {self.model.info.name}") + graph._repr_html_()

    @contextmanager
    def world(self, name: str, *inputs: Any, base: str | None = None, **kwargs: Any) -> Iterator[None]:
        """Open a named world: one call of the model on these inputs.

        Args:
            name: how it is called in the graph.
            *inputs: a prompt, a list of prompts, a `Batch`, or what the module is called with.
            base: the world it is a variation of, if any.
            **kwargs: further arguments of the module; with `max_new_tokens` the world is a generation, as in
                `Model.generate`.
        """
        self.worlds.check_new(name, base)
        self._open_world(name, self.model.batch(*inputs, **kwargs), base)
        try:
            yield
        finally:
            self.worlds.open = None

    def steps(self, start: int = 0, stop: int | None = None) -> AbstractContextManager[None]:
        """Steps of a generation: what is written inside happens at each of them; what is saved becomes a list.

        Args:
            start: the first; step 0 is the prompt, each later one a new token.
            stop: the one after the last; None for all that there are.
        """
        return self.worlds.at(Steps(start, stop))

    def step(self, number: int) -> AbstractContextManager[None]:
        """One step of a generation; what is saved inside becomes one value."""
        return self.worlds.at(Steps(number, number + 1, one=True))

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
        world = self.worlds.name(site)
        steps = self.recorder.steps
        shape = self.model.shapes.of(site, self.worlds.batches[world], steps)
        ref = self.recorder.add(Read(site=site, world=world, steps=steps))
        generation = self.held.generation((site, world, steps))
        return Proxy.make(self, ref, shape, Origin(site=site, world=world, steps=steps, generation=generation))

    def write(self, site: Site, value: Any) -> None:
        """Record `site = value` in the open world."""
        world = self.worlds.name(site)
        steps = self.recorder.steps
        shape = self.model.shapes.of(site, self.worlds.batches[world], steps)
        if not isinstance(value, Proxy):
            value = site_value(self, value, self.model.dtype if shape is None else shape.dtype)
        ref = value.ref_in(self.recorder)
        if self.held.is_last((site, world, steps), ref):
            return  # `site += v` hands the changed value back to the site it has already been written to
        if shape is not None and value._shape_of is not None:
            check_site(site, shape, value._shape_of, self.model.table().fixed(site.local, self.model.sizes()))
        self.note_write(Origin(site=site, world=world, steps=steps), ref)

    def skip(self, site: Site, value: Any) -> None:
        """Record that the module which makes a site is not run, and what stands for its result.

        Args:
            site: the `output` of a layer, of its attention or MLP, or of any module.
            value: a value of the block, a tensor or a number; None passes a layer's input on, and adds nothing for an
                attention or MLP.
        """
        world, steps = self.worlds.name(site), self.recorder.steps
        stands = stand_in(self, site, value, self.model.shapes.of(site, self.worlds.batches[world], steps))
        self.recorder.add(Skip(site=site, world=world, value=stands.ref_in(self.recorder), steps=steps))

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

    def stop(self) -> None:
        """Run nothing more of the open world once its sites have been reached; a generation ends with this step."""
        world = self.worlds.name("t.stop()")
        self.recorder.add(Stop(world=world, steps=self.recorder.steps))

    def log(self, label: str, value: Any) -> None:
        """Print a value under a label when it is made.

        Args:
            label: what to call it.
            value: a value of the block.
        """
        if not isinstance(value, Proxy):
            raise TraceError(f"{user_line()}: t.log takes a value of the block, not a {type(value).__name__}.")
        self.recorder.add(Log(label=label, value=value.ref_in(self.recorder)))

    def apply(self, function: Callable[..., Any], *values: Any, like: Any = None) -> Any:
        """Call any function with real tensors when they are made; only on this machine.

        Args:
            function: called once a run (once a step, for values of several steps).
            *values: values of the block, tensors, numbers or text.
            like: a value whose shape and type the result has; without it, the shape is not known in the block.

        Returns:
            a value of the block: what the function returns.
        """
        shape = None if like is None else known_shape(like)
        return Proxy.make(self, self.recorder.apply(function, values, shape), shape)

    def answer(self, proxy: Proxy, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What torch was asked to do to a value of this block; see `interpose.trace.dispatch`."""
        return answer(proxy, func, args, kwargs)

    def index(self, value: Any, where: Any) -> Any:
        """Record an index of a value."""
        return index(self, value, where)

    def set_index(self, target: Proxy, where: Any, value: Any) -> None:
        """Record a write to an index of a value."""
        target.check_open()
        set_index(self, target, where, value)

    def note_save(self, proxy: Proxy, name: str | None) -> None:
        """Record that a value is wanted after the block."""
        if name is None:
            name = next(free for i in count(len(self._saves)) if (free := f"saved{i}") not in self._saves)
        check_save(name, self._saves, self.worlds.batches)
        self.recorder.add(Save(name=name, value=proxy.ref_in(self.recorder)))
        self._saves[name] = proxy

    def note_write(self, origin: Origin, value: Ref, in_place: bool = False) -> None:
        """Record that a site carries a value from here on.

        Args:
            origin: the site, its world and its steps.
            value: the value.
            in_place: it is the site's own value, changed; else another in its place.
        """
        assert origin.site is not None
        if origin.steps != self.recorder.steps:
            raise TraceError(
                f"{user_line()}: this value was read at {origin.steps} and is changed in place outside of it. Read "
                f"{origin.site} again at the steps where it is to be changed."
            )
        self.recorder.add(Write(site=origin.site, world=origin.world, value=value, steps=origin.steps))
        self.held.note((origin.site, origin.world, origin.steps), value, in_place)

    def find_shape(self, ref: Ref) -> torch.Tensor:
        """The shape of a value that no table tells: the model runs once, without data."""
        feed = Feed(dict(self.worlds.batches), dict(self.recorder.constants))
        return self.model.shapes.of_value(self.recorder, tuple(self.worlds.all.values()), feed, ref)

    def _open_world(self, name: str, batch: Batch, base: str | None) -> None:
        self.worlds.begin(name, batch, base)
        if batch.generation is not None:
            check_save(f"{name}.tokens", self._saves, {})
            ref = self.recorder.add(Read(site=shared(NEW_TOKENS), world=name))
            self.recorder.add(Save(name=f"{name}.tokens", value=ref))
