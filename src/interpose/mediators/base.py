"""What every mediator is: a kind of unit that may carry the cause, and, for units that are places, how to reach one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from interpose.errors import SearchError
from interpose.graph import Site
from interpose.trace import Model


@runtime_checkable
class Prompts(Protocol):
    """What units may depend on; `interpose.tasks.base.Pairs` is of this form."""

    @property
    def clean_tokens(self) -> Int[Tensor, "n pos"]:
        """Token ids, padded on the left."""
        ...

    @property
    def roles(self) -> Mapping[str, Int[Tensor, " n"]]:
        """By the name of a role that a token plays, its position in each prompt, counted from the last (-1)."""
        ...


def position_of(prompts: Prompts, role: str) -> Int[Tensor, " n"]:
    """Where the token with a role stands in each prompt, counted from the last (-1).

    Raises:
        SearchError: the prompts have no such role, or none at all.
    """
    if role in prompts.roles:
        return prompts.roles[role]
    if prompts.roles:
        raise SearchError(f"These pairs have no role {role!r}. Their roles are: {', '.join(prompts.roles)}.")
    raise SearchError(
        f"These pairs have no role {role!r}: they do not say which part any token plays. Draw pairs from a task that "
        "names roles, or add them, counted from the last token: dataclasses.replace(pairs, "
        f'roles={{"{role}": torch.tensor([-3, -4, ...])}}).'
    )


@dataclass(frozen=True)
class Unit:
    """One place that can be read and patched: a site, or a part of it.

    Attributes:
        name: how tables and pictures call it.
        site: the site it lies at.
        head: which entry of the site's head axis, or None for all.
        neuron: which entry of the site's neuron axis, or None for all.
        position: which position, counted from the last (-1), or None for all.
        role: the role of the token at whose position it lies, which may be another in each prompt; None where its
            position is the same in all.
    """

    name: str
    site: Site
    head: int | None = None
    neuron: int | None = None
    position: int | None = None
    role: str | None = None

    def index(self, prompts: Prompts | None = None) -> tuple[Any, ...]:
        """The index of this part in the site's tensor.

        Args:
            prompts: the prompts of the batch at hand, row for row; only a unit at a role's position needs them.

        Raises:
            SearchError: it lies at a role's position, and the prompts are not given or do not have that role.
        """
        axes = self.site.axes or ()
        chosen: dict[str, Any] = {"H": self.head, "K": self.head, "F": self.neuron, "P": self.position}
        if self.role is not None:
            where = self._where(self.role, prompts)
            chosen |= {"B": torch.arange(len(where), device=where.device), "P": where}
        return tuple(slice(None) if chosen.get(axis) is None else chosen[axis] for axis in axes)

    def at(self, where: int | str) -> "Unit":
        """The same unit at one position only, or at the position of the token with a role."""
        name = f"{self.name}@{where}"
        return (
            replace(self, name=name, role=where) if isinstance(where, str) else replace(self, name=name, position=where)
        )

    @property
    def whole(self) -> bool:
        """It takes all positions."""
        return self.position is None and self.role is None

    def _where(self, role: str, prompts: Prompts | None) -> Int[Tensor, " n"]:
        if prompts is None:
            raise SearchError(
                f"{self.name} lies at another position in each prompt. Give the prompts of the batch at hand: "
                "unit.index(pairs)."
            )
        return position_of(prompts, role)


@dataclass(frozen=True)
class Mediator(ABC):
    """A kind of unit; its fields are its settings.

    Attributes:
        method: the method that is made for such units, where most others cannot score them, as `PathPatching()`.
    """

    method: ClassVar[str | None] = None

    @abstractmethod
    def units(self, model: Model, prompts: Prompts | None = None) -> Sequence[str]:
        """The units' names, in the order that scores have.

        Args:
            model: the model they are parts of.
            prompts: the pairs that are searched with, such as `Pairs`; only units that depend on them need it.

        Raises:
            SearchError: the units depend on the prompts, and none are given.
        """


@dataclass(frozen=True)
class PlaceMediator(Mediator):
    """A kind of unit that is a place: a site, or a head or position of one."""

    @abstractmethod
    def places(self, model: Model, prompts: Prompts | None = None) -> tuple[Unit, ...]:
        """The units, in the order that scores have; arguments as for `units`."""

    def units(self, model: Model, prompts: Prompts | None = None) -> Sequence[str]:
        """The names of `places`."""
        return tuple(unit.name for unit in self.places(model, prompts))


def places_of(own: Mediator, of: Mediator, model: Model, prompts: Prompts | None) -> tuple[Unit, ...]:
    """The units that a mediator takes apart, each of them all positions of a place.

    Args:
        own: the mediator that takes them apart.
        of: the mediator whose units they are.
        model: the model they are parts of.
        prompts: as for `Mediator.units`.

    Raises:
        SearchError: the other mediator's units are no places, or are single positions already.
    """
    instead = f"Write {type(own).__name__}(of=Streams())."
    if not isinstance(of, PlaceMediator):
        raise SearchError(f"The units of {of!r} are no places, so they have no positions. {instead}")
    units = of.places(model, prompts)
    if not all(unit.whole for unit in units):
        raise SearchError(f"The units of {of!r} are single positions already. {instead}")
    return units


def names_of(given: tuple[str, ...] | str, setting: str) -> tuple[str, ...]:
    """A setting that is a tuple of names. Raises SearchError for one text, which would be taken letter by letter."""
    if isinstance(given, str):
        raise SearchError(f"{setting} is a tuple of names, but here it is one text. Write {setting}=({given!r},).")
    return given


def sites_of(places: Sequence[Unit]) -> tuple[Site, ...]:
    """The different sites of some units, in order."""
    return tuple(dict.fromkeys(unit.site for unit in places))
