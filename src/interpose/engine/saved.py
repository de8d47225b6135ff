"""What a run gives back: the saved values, without derivatives and in memory of their own."""

from typing import Any, final

from torch import Tensor

from interpose.engine.structures import detach, tensors_in


class Overwritten(Exception):
    """The network changed a value in place after it was read; the run must be done again with copies."""


@final
class Saved:
    """The saved values of one run.

    Attributes:
        values: what was saved, by name.
        weights: the memory of the network's weights and buffers; what is saved from there is copied.

    Args:
        versioned: tensors count how often they are changed in place; not so in inference mode.
    """

    def __init__(self, versioned: bool) -> None:
        """Nothing is saved yet."""
        self.values: dict[str, Any] = {}
        self._versioned = versioned
        self._kept: list[tuple[Tensor, int]] = []
        self._foreign: set[int] = set()
        self.weights: frozenset[int] = frozenset()

    def not_ours(self, value: Tensor) -> None:
        """Note that a tensor's memory is the model's or the feed's, so that saving it takes a copy."""
        self._foreign.add(value.untyped_storage()._cdata)

    def keep(self, names: tuple[str, ...], value: Any, listed: bool = False) -> None:
        """Keep a value under some names.

        Args:
            names: the names.
            value: a tensor, or a structure of them.
            listed: it is one of several, one a step; they become a list.
        """
        if isinstance(value, Tensor):
            value = self._own(value.detach())
            if self._versioned:
                self._kept.append((value, value._version))
        else:
            value = detach(value, self._own)
            if self._versioned:
                self._kept += [(part, part._version) for part in tensors_in(value)]
        for name in names:
            if listed:
                self.values.setdefault(name, []).append(value)
            else:
                self.values[name] = value

    def finish(self) -> dict[str, Any]:
        """The saved values.

        Raises:
            Overwritten: the network has changed one of them since it was read.
        """
        if any(value._version != version for value, version in self._kept):
            raise Overwritten
        return self.values

    def _own(self, value: Tensor) -> Tensor:
        """The value in memory that is not much larger than it, and that no weight, input or other saved value is in."""
        storage = value.untyped_storage()
        if storage.nbytes() > 2 * value.nbytes or storage._cdata in self._foreign or storage._cdata in self.weights:
            return value.clone()
        self._foreign.add(storage._cdata)  # a second value in the same memory gets a copy
        return value
