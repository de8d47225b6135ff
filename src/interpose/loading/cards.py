"""The cards of the models that interpose knows by a short name: `zoo/NAME/card.toml`. Reading them needs no torch."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from interpose.errors import LoadError
from interpose.loading.card_fields import filled

CARD = "card.toml"
MOST_BYTES = 8 * 2**20
"""How large the weights of one model of the zoo may be."""


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
class Weights:
    """A file of weights that lies beside the card.

    Attributes:
        sha256: its hash.
        bytes: its size.
        file: its name.
    """

    sha256: str
    bytes: int
    file: str = "weights.safetensors"


@dataclass(frozen=True)
class Vocabulary:
    """How text becomes tokens: by a list of words, or by a tokenizer file beside the card.

    Attributes:
        words: the words in the order of their ids; among them `<unk>`, and `<pad>` where prompts may be padded.
        first: a word that is put in front of every prompt, or empty.
        file: a `tokenizer.json`, in place of `words`.
        punctuation: text is split at white space and around commas, full stops and the like, each a word of its own;
            else at white space only.
    """

    words: tuple[str, ...] = ()
    first: str = ""
    file: str = ""
    punctuation: bool = False


@dataclass(frozen=True)
class Made:
    """How a model was made; `interpose zoo train NAME` makes it again.

    Attributes:
        data: what it was trained on, or what its weights were computed from.
        seed: of its first weights and of the order of its data.
        steps: how many steps of an optimiser it took; 0 where the weights were computed.
        cost: what that took, and on what machine.
    """

    data: str
    seed: int
    steps: int
    cost: str


@dataclass(frozen=True)
class Score:
    """One measured number.

    Attributes:
        value: what was measured.
        low: lower bound, 95 %.
        high: upper bound, 95 %.
        n: over how many examples.
    """

    value: float
    low: float
    high: float
    n: int

    def agrees(self, other: "Score") -> bool:
        """Whether two measurements may be of the same thing: their intervals meet."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Truth:
    """What is known of how a model does its task.

    Attributes:
        edges: the edges of its circuit, as `interpose.mediators.Edges` names them, keys and values not grouped.
        proof: why it is known.
    """

    edges: tuple[str, ...]
    proof: str

    def __post_init__(self) -> None:
        """Refuse a circuit of nothing, which a card could not say."""
        if not self.edges:
            raise LoadError(
                "[truth] edges is empty; expected the names of the circuit's edges, such as 'a0.h1->logits'. Where the "
                "circuit is not known, leave [truth] out."
            )


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
        wheel: where the weights are, if they are in a wheel.
        weights: where the weights are, if they lie beside the card.
        config: the settings with which `interpose.build` makes the network for `weights`.
        tokenizer: how text becomes tokens, for `weights`.
        task: name of the task that the model was made for, or empty.
        made: how it was made, if interpose made it.
        scores: what was measured of it, by name.
        truth: what is known of how it works, if anything.
        folder: where the card lies.
    """

    name: str
    what: str
    architecture: str
    parameters: int
    licence: str
    origin: str
    note: str
    wheel: Wheel | None = None
    weights: Weights | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Vocabulary | None = None
    task: str = ""
    made: Made | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)
    truth: Truth | None = None
    folder: Path = Path()

    @property
    def in_wheel(self) -> Wheel:
        """The wheel that holds the weights.

        Raises:
            LoadError: they are not in a wheel.
        """
        if self.wheel is None:
            raise LoadError(f"The weights of {self.name} lie beside its card, in {self.folder}, not in a wheel.")
        return self.wheel

    @property
    def disk_bytes(self) -> int:
        """Room needed while the weights are made: pip's two copies of the wheel, the GGUF file, float32 weights."""
        return 2 * self.in_wheel.bytes + self.in_wheel.file_bytes + 4 * self.parameters


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
        card = filled(Card, {**fields, "folder": path.parent})
        _check(card)
    except (OSError, tomllib.TOMLDecodeError, ValueError, LoadError) as error:
        raise LoadError(f"{path} is not a model card: {str(error).rstrip('.')}.") from error
    return card


def _check(card: Card) -> None:
    if (card.wheel is None) == (card.weights is None):
        found = "both" if card.wheel else "neither"
        raise ValueError(f"it needs one of the tables [wheel] and [weights], and has {found}")
    if card.weights is None:
        return
    if card.tokenizer is None or bool(card.tokenizer.words) == bool(card.tokenizer.file):
        raise ValueError("beside [weights] it needs [tokenizer] with one of words = [...] and file = '...'")
    if card.tokenizer.words and "<unk>" not in card.tokenizer.words:
        raise ValueError("[tokenizer] words lack '<unk>', which every word that is not in the list becomes")
    if not card.config:
        raise ValueError("beside [weights] it needs [config], the settings of the network")


@cache
def cards() -> dict[str, Card]:
    """Every card of the zoo by its name, in alphabetical order."""
    zoo = Path(str(files("interpose.zoo")))
    found = [read(path) for path in sorted(zoo.glob(f"*/{CARD}"))]
    return {card.name: card for card in found}
