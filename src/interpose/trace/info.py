"""Where a model came from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelInfo:
    """Where a model came from.

    Attributes:
        name: what the user asked for.
        source: `wheel`, `zoo`, `hub`, `folder`, `wrap` or `build`.
        note: what a reader of its results should know, such as "4-bit, dequantised".
        licence: its licence, where known.
        weights_hash: sha256 of its weights file, or empty.
    """

    name: str
    source: str
    note: str = ""
    licence: str = ""
    weights_hash: str = ""
