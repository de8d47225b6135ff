"""Any other kind of place, at the tokens that play a part in the prompt."""

from dataclasses import dataclass
from typing import final

from interpose.errors import SearchError
from interpose.mediators.base import PlaceMediator, Prompts, Unit, names_of, places_of, position_of
from interpose.mediators.streams import Streams
from interpose.trace import Model


@final
@dataclass(frozen=True)
class TokenRoles(PlaceMediator):
    """The units of another mediator at tokens with a role: `s3@subject_last` is the stream there, after layer 3.

    Which position that is may differ from prompt to prompt; `pairs.roles` says it. Two roles may fall on one token of a
    prompt, and there their units are the same place.

    Attributes:
        of: which units.
        roles: which roles; by default all that the pairs have.
    """

    of: PlaceMediator = Streams()
    roles: tuple[str, ...] | None = None

    def places(self, model: Model, prompts: Prompts | None = None) -> tuple[Unit, ...]:
        """Unit by unit, each at every role in turn; see `PlaceMediator.places`.

        Raises:
            SearchError: no prompts are given, or they do not have these roles; or the other mediator's units are
                no places, or single positions already.
        """
        units = places_of(self, self.of, model, prompts)
        if prompts is None:
            raise SearchError(f"Which tokens {self!r} means depends on the prompts. Give the pairs too.")
        roles = tuple(prompts.roles) if self.roles is None else names_of(self.roles, "roles")
        if not roles:
            raise SearchError(
                f"{self!r} has no units: these pairs name no roles of tokens. Draw them from a task that does, or use "
                "Positions()."
            )
        for role in roles:
            position_of(prompts, role)
        return tuple(unit.at(role) for unit in units for role in roles)
