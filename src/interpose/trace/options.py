"""How activations are cached: batch size, positions, number type, size of a shard."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, final

import torch

from interpose.errors import DataError
from interpose.trace.lines import user_line

TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
"""What activations can be stored as."""


@final
@dataclass(frozen=True)
class Options:
    """How activations are cached.

    Attributes:
        batch_size: how many prompts go through the network at a time.
        positions: `all` keeps a row for every token, `last` one for each prompt's last token.
        dtype: `float16`, `bfloat16` or `float32`; None keeps the network's own.
        shard_bytes: a shard is closed when it has at least this size.
        progress: show a bar where standard error is a terminal.
    """

    batch_size: int = 16
    positions: str = "all"
    dtype: str | torch.dtype | None = None
    shard_bytes: int = 256 * 2**20
    progress: bool = True

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Options":
        """Options from named arguments.

        Raises:
            DataError: there is no such option, or it has no such value.
        """
        for name in given:
            if name not in cls.__dataclass_fields__:
                near = get_close_matches(name, cls.__dataclass_fields__, n=1) or list(cls.__dataclass_fields__)
                raise DataError(f"{user_line()}: cache has no option {name!r}. Nearest: {', '.join(near)}.")
        made = cls(**given)
        made._check()
        return made

    @property
    def type_name(self) -> str | None:
        """The number type by name."""
        return None if self.dtype is None else str(self.dtype).removeprefix("torch.")

    def _check(self) -> None:
        wrong = None
        if self.positions not in ("all", "last"):
            wrong = f"positions={self.positions!r}. Write positions='all' or positions='last'"
        elif self.type_name is not None and self.type_name not in TYPES:
            wrong = f"dtype={self.type_name!r}. Write one of {', '.join(map(repr, TYPES))}, or None to keep the model's"
        for name in ("batch_size", "shard_bytes"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                wrong = f"{name}={getattr(self, name)!r}. Write a whole number, 1 or more"
        if wrong:
            raise DataError(f"{user_line()}: cache cannot take {wrong}.")
