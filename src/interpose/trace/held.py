"""What the sites of a block hold, as far as the program has written."""

from dataclasses import dataclass
from typing import final

from interpose.errors import TraceError
from interpose.graph.arguments import Ref, Steps
from interpose.graph.sites import Site
from interpose.trace.lines import user_line
from interpose.trace.proxy import Origin

Key = tuple[Site, str, Steps | None]


@dataclass
class _State:
    """One site.

    Attributes:
        generation: how often it was given another value.
        last: the value written last.
        in_place: the value as it was last changed in place, if it was since.
    """

    generation: int = 0
    last: Ref | None = None
    in_place: Ref | None = None


_NOTHING = _State()


@final
class Held:
    """The sites of one block, by site, world and steps."""

    def __init__(self) -> None:
        """Nothing has been written."""
        self._states: dict[Key, _State] = {}

    def generation(self, key: Key) -> int:
        """How often a site has been given another value."""
        state = self._states.get(key)
        return 0 if state is None else state.generation

    def is_last(self, key: Key, value: Ref) -> bool:
        """Whether this very value was written last."""
        state = self._states.get(key)
        return state is not None and state.last == value

    def note(self, key: Key, value: Ref, in_place: bool) -> None:
        """A site carries a value from here on: its own, changed in place, or another."""
        site, world, steps = key
        for (other, where, when), held in self._states.items():
            # What was read at steps that overlap these holds another value now.
            if other == site and where == world and when != steps and steps is not None and steps.meets(when):
                held.last, held.in_place, held.generation = None, None, held.generation + 1
        state = self._states.setdefault(key, _State())
        state.last, state.in_place = value, value if in_place else None
        state.generation += not in_place

    def in_place(self, origin: Origin) -> Ref | None:
        """The value of a site as it was last changed in place; None where it still is what was read.

        Raises:
            TraceError: the site was given another value since it was read.
        """
        assert origin.site is not None
        state = self._states.get((origin.site, origin.world, origin.steps), _NOTHING)
        if state.generation != origin.generation:
            raise TraceError(
                f"{user_line()}: {origin.site} has been given another value since this one was read from it, so "
                "changing this one would change nothing. Read the site again."
            )
        return state.in_place
