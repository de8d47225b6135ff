"""What a run gives back: the saved values, without derivatives and in memory of their own."""

from typing import Any, final

from torch import Tensor

from interpose.engine.structures import detach, tensors_in


class Overwritten(Exception):
    """The network changed a value in place after it was read; the run must be done again with copies."""


@final
class Saved:
    """The saved values of one run.

    Values that share memory in the network share it here, as a hook would find them.

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
        self._kept: list[Tensor] = []
        self._versions: list[int] = []
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
            storage = value.untyped_storage()
            # Memory much larger than the value would be kept alive whole.
            if (
                storage.nbytes() > 2 * value.nbytes
                or storage._cdata in self.weights
                or (self._foreign and storage._cdata in self._foreign)
            ):
                value = value.detach().clone()
            else:
                if value.requires_grad or value._is_view() or type(value) is not Tensor:
                    value = value.detach()
                if self._versioned:
                    self._kept.append(value)
                    self._versions.append(value._version)
        else:
            value = detach(value, self._own)
            if self._versioned:
                parts = list(tensors_in(value))
                self._kept += parts
                self._versions += [part._version for part in parts]
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
        if [value._version for value in self._kept] != self._versions:
            raise Overwritten
        return self.values

    def _own(self, value: Tensor) -> Tensor:
        """The value in memory that is not much larger than it, and that no weight or input is in."""
        storage = value.untyped_storage()
        if storage.nbytes() > 2 * value.nbytes or storage._cdata in self._foreign or storage._cdata in self.weights:
            return value.clone()
        return value
