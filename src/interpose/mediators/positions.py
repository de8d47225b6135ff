"""Any other kind of place, one position at a time."""

from dataclasses import dataclass
from typing import final

from interpose.errors import SearchError
from interpose.mediators.base import PlaceMediator, Prompts, Unit, places_of
from interpose.mediators.streams import Streams
from interpose.trace import Model


@final
@dataclass(frozen=True)
class Positions(PlaceMediator):
    """The units of another mediator at each position apart: `s3@-1` is the stream after layer 3 at the last position.

    Positions count from the last token (-1), so that they mean the same on prompts of unequal length.

    Attributes:
        of: which units.
        last: only so many positions, counted from the last; by default as many as the longest prompt has.
    """

    of: PlaceMediator = Streams()
    last: int | None = None

    def places(self, model: Model, prompts: Prompts | None = None) -> tuple[Unit, ...]:
        """Unit by unit, each from the first position to the last; see `PlaceMediator.places`.

        Raises:
            SearchError: the other mediator's units are no places, or single positions already.
        """
        units = places_of(self, self.of, model, prompts)
        return tuple(unit.at(position) for unit in units for position in range(-self._count(prompts), 0))

    def _count(self, prompts: Prompts | None) -> int:
        if prompts is None and self.last is None:
            raise SearchError(
                f"How many positions {self!r} has depends on the prompts. Give the pairs too, or say how many with "
                "last=5."
            )
        longest = self.last if prompts is None else prompts.clean_tokens.shape[1]
        count = longest if self.last is None else min(self.last, longest or 0)
        if not count or count < 1:
            raise SearchError(f"{self!r} has no position. Write a number of positions, 1 or more.")
        return count
