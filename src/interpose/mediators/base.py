"""What every mediator is: a kind of unit that may carry the cause, and, for units that are places, how to reach one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from interpose.graph import Site
from interpose.trace import Model


@dataclass(frozen=True)
class Unit:
    """One place that can be read and patched: a site, or a part of it.

    Attributes:
        name: how tables and pictures call it.
        site: the site it lies at.
        head: which entry of the site's head axis, or None for all.
        neuron: which entry of the site's neuron axis, or None for all.
        position: which position, counted from the last (-1), or None for all.
    """

    name: str
    site: Site
    head: int | None = None
    neuron: int | None = None
    position: int | None = None

    def index(self) -> tuple[Any, ...]:
        """The index of this part in the site's tensor."""
        axes = self.site.axes or ()
        chosen: dict[str, Any] = {"H": self.head, "K": self.head, "F": self.neuron, "P": self.position}
        return tuple(slice(None) if chosen.get(axis) is None else chosen[axis] for axis in axes)

    def at(self, position: int) -> "Unit":
        """The same unit at one position only."""
        return replace(self, name=f"{self.name}@{position}", position=position)


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


@dataclass(frozen=True)
class Mediator(ABC):
    """A kind of unit; its fields are its settings."""

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


def sites_of(places: Sequence[Unit]) -> tuple[Site, ...]:
    """The different sites of some units, in order."""
    return tuple(dict.fromkeys(unit.site for unit in places))
