"""The worlds of a block: which are open, what they are given, at which steps of a generation the program stands."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

from interpose.errors import TraceError
from interpose.graph import Batch, World
from interpose.graph.arguments import Steps
from interpose.graph.sites import Site
from interpose.trace.lines import user_line
from interpose.trace.positions import Axes, Padding, check_keys, place_index, taken
from interpose.trace.proxy import Proxy
from interpose.trace.recorder import Recorder


@final
class Worlds:
    """The worlds of one block.

    Attributes:
        all: every world opened so far, by name.
        batches: what each is given.
        open: the name of the one that is open now, or None.

    Args:
        recorder: the block's recorder, which is told at which steps the program stands.
    """

    def __init__(self, recorder: Recorder) -> None:
        """None is open."""
        self.all: dict[str, World] = {}
        self.batches: dict[str, Batch] = {}
        self.open: str | None = None
        self._recorder = recorder
        self._paddings: dict[tuple[str, str], Padding | None] = {}

    def begin(self, name: str, batch: Batch, base: str | None) -> None:
        """Open a world."""
        self.all[name] = World(name, base, at=user_line())
        self.batches[name], self.open = batch, name

    def check_new(self, name: str, base: str | None) -> None:
        """Check that a world may be opened here.

        Raises:
            TraceError: another is open, or the name is taken, or the base is none of the block's.
        """
        if self.open is not None:
            raise TraceError(
                f"{user_line()}: the world {name!r} is opened inside the world {self.open!r}. "
                "Close one before the next; values read in one can be written in another."
            )
        if name in self.all:
            raise TraceError(
                f"{user_line()}: there already is a world named {name!r}. A world is one call; name this one anew."
            )
        if base is not None and base not in self.all:
            raise TraceError(f"{user_line()}: the base {base!r} of the world {name!r} is no world of this block.")

    def name(self, what: Site | str) -> str:
        """The open world, for something that belongs to one.

        Args:
            what: the site or the call, for the message.

        Raises:
            TraceError: none is open, or it is a generation and no step is.
        """
        if self.open is None:
            raise TraceError(
                f"{user_line()}: {what} belongs to a world, and none is open here. Write\n"
                f'    with t.world("clean", prompt):\n        ... {what} ...\n'
                "or give the prompt to trace(...) itself."
            )
        if self.batches[self.open].generation is not None and self._recorder.steps is None:
            raise TraceError(
                f"{user_line()}: say at which step of the generation {what} is meant: with t.steps(): ... for all of "
                "them, with t.step(0): ... for the prompt."
            )
        return self.open

    @contextmanager
    def at(self, steps: Steps) -> Iterator[None]:
        """Stand at some steps of the open generation.

        Raises:
            TraceError: no generation is open, or the program stands at steps already, or they are none.
        """
        if self.open is None or self.batches[self.open].generation is None:
            raise TraceError(
                f"{user_line()}: only a generation has steps. Write\n"
                "    with model.generate(prompt, max_new_tokens=20) as t:\n        with t.steps(): ..."
            )
        if self._recorder.steps is not None:
            raise TraceError(
                f"{user_line()}: {steps} is opened inside {self._recorder.steps}. Close one before the next."
            )
        if steps.start < 0 or (steps.stop is not None and steps.stop <= steps.start):
            raise TraceError(f"{user_line()}: {steps} names no step; steps count from 0, and the stop is not included.")
        self._recorder.steps, self._recorder.world = steps, self.open
        try:
            yield
        finally:
            self._recorder.steps = self._recorder.world = None

    def place_index(self, value: Any, index: Any) -> tuple[Any, Any]:
        """An index as it is meant on left-padded batches; see `interpose.trace.positions`."""
        followed = self._followed(value) if isinstance(value, Proxy) else None
        if followed is None:
            return None, index
        site, steps, axes, padding = followed
        if steps is not None and steps.start:
            check_keys(index, site, axes, padding)
            return None, index  # after the prompt each step has one position
        if value._shape_of is None:
            return None, index
        columns, rest = place_index(index, site, axes, padding, value._shape_of.shape)
        if (columns is not None or rest is not index) and steps is not None and not steps.one:
            raise TraceError(
                f"{user_line()}: the prompts have unequal lengths and later steps have one position, so name positions "
                "from the end ([:, -1]) here, and the prompt's own in `with t.step(0)`."
            )
        return columns, rest

    def _followed(self, value: Proxy) -> tuple[Site, Steps | None, Axes, Padding] | None:
        """The standard site that a value is a plain index of, on prompts that are padded, and what is left of it."""
        origin, before = value._origin, []
        while origin is not None and origin.site is None:
            before.append(origin.index)
            origin = None if origin.parent is None else origin.parent._origin
        if origin is None or origin.site is None:
            return None
        axes: Axes = origin.site.axes or ()
        padding = self._padding(origin.world, origin.site)
        if not axes or padding is None:
            return None
        for where in reversed(before):
            left = taken(axes, where, padding)
            if left is None:
                return None
            axes, padding = left
        return origin.site, origin.steps, axes, padding

    def _padding(self, world: str, site: Site) -> Padding | None:
        table = self._recorder.model.family
        key = world, "" if table is None else table.given_as(site)
        if key not in self._paddings:
            batch = self.batches[world]
            self._paddings[key] = None if batch.whole and not key[1] else Padding.of(batch, key[1])
        return self._paddings[key]
