"""Any other kind of place, one position at a time."""

from dataclasses import dataclass
from typing import final

from interpose.errors import SearchError
from interpose.mediators.base import PlaceMediator, Unit
from interpose.mediators.streams import Streams
from interpose.trace import Model


@final
@dataclass(frozen=True)
class Positions(PlaceMediator):
    """The units of another mediator at each position apart: `s3@-1` is the stream after layer 3 at the last position.

    Positions count from the last token (-1), so that they mean the same on prompts of unequal length.

    Attributes:
        of: which units.
    """

    of: PlaceMediator = Streams()

    def places(self, model: Model, positions: int) -> tuple[Unit, ...]:
        """Unit by unit, each from the first position to the last; see `PlaceMediator.places`.

        Raises:
            SearchError: the other mediator's units are single positions already.
        """
        units = self.of.places(model, positions)
        if any(unit.position is not None for unit in units):
            raise SearchError(f"The units of {self.of!r} are single positions already. Write Positions(of=Streams()).")
        return tuple(unit.at(position) for unit in units for position in range(-positions, 0))
