"""Rows of tensors that are spread over shards, read through memory maps."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interpose.errors import DataError

_OPEN = 64
"""At most so many shards are mapped at a time."""


@final
class Shards:
    """The files of a data set, mapped as they are needed.

    Attributes:
        count: how many rows they have together.

    Args:
        folder: where they are.
        shards: what the index says of each: its file and number of rows.
    """

    def __init__(self, folder: Path, shards: Sequence[dict[str, Any]]) -> None:
        """Count the rows; no file is opened yet."""
        self._files = [folder / shard["file"] for shard in shards]
        ends = torch.tensor([shard["rows"] for shard in shards]).cumsum(0)
        self.count = int(ends[-1])
        self._ends = ends
        self._mapped = lru_cache(_OPEN)(self._open)

    def take(self, name: str, numbers: Tensor) -> Tensor:
        """The rows of these numbers, in any shape."""
        flat = numbers.flatten()
        where = torch.bucketize(flat, self._ends, right=True)
        found: Tensor | None = None
        for shard in where.unique().tolist() or [0]:
            chosen = where == shard
            rows = self._mapped(shard)[name][flat[chosen] - self._start(shard)]
            if found is None:
                found = rows.new_empty(len(flat), *rows.shape[1:])
            found[chosen] = rows
        assert found is not None
        return found.view(*numbers.shape, *found.shape[1:])

    def between(self, name: str, start: int, stop: int) -> Tensor:
        """The rows from one number up to another."""
        parts, at = [], start
        while at < stop or not parts:
            shard = min(int(torch.bucketize(at, self._ends, right=True)), len(self._files) - 1)
            end = min(stop, int(self._ends[shard]))
            parts.append(self._mapped(shard)[name][at - self._start(shard) : end - self._start(shard)])
            at = max(end, at)
        return torch.cat(parts) if len(parts) > 1 else parts[0].clone()

    def _start(self, shard: int) -> int:
        return int(self._ends[shard - 1]) if shard else 0

    def _open(self, shard: int) -> dict[str, Tensor]:
        path = self._files[shard]
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"{path} is damaged ({error}). Call model.cache(...) with the same settings and prompts: it makes that "
                "shard again."
            ) from error
