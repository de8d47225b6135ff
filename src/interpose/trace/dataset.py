"""A data set of activations on disk, as what probes, sparse autoencoders and lenses train on.

Shards are mapped into memory: only the rows that are asked for are read, and what is given out is always a copy.
"""

import operator
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from interpose.errors import DataError
from interpose.trace.lines import user_line
from interpose.trace.mapped import Shards
from interpose.trace.reading import key_of, site_of
from interpose.trace.shards import read_index

_ABOUT = ("tokens", "prompt", "position")
_BLOCKS = 16
"""A buffer is filled from so many places."""


@final
class RowError(DataError, IndexError):
    """A DataError that ends a loop over rows too."""


@final
class Rows:
    """One site's rows: like a tensor [row, ...] that stays on disk until it is indexed.

    Attributes:
        name: the site.
        shape: of all rows together.
        dtype: the number type.
    """

    def __init__(self, name: str, kind: dict[str, Any], shards: "Shards") -> None:
        """Hold the place; nothing is read."""
        self.name, self._shards = name, shards
        self.shape = torch.Size([shards.count, *kind["shape"]])
        self.dtype: torch.dtype = getattr(torch, kind["dtype"])

    def __len__(self) -> int:
        """How many rows there are."""
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        """Rows by number, slice, list or tensor of numbers, or mask; `rows[:]` reads all of them."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._shards.between(self.name, start, max(start, stop))
            return self._shards.take(self.name, torch.arange(start, stop, step))
        if isinstance(index, Tensor | list | tuple) or (hasattr(index, "__array__") and getattr(index, "ndim", 0)):
            return self._shards.take(self.name, self._numbers(index))
        try:
            number = operator.index(index)
        except TypeError:
            raise DataError(
                f"{user_line()}: rows are taken by a number, a slice, or a list or tensor of numbers, not by "
                f"{type(index).__name__}; index what that gives further: rows[3:7][:, 2]."
            ) from None
        return self._shards.take(self.name, self._numbers([number]))[0]

    def __getitems__(self, numbers: list[int]) -> list[Tensor]:
        """Several rows at once; what a DataLoader of torch asks for."""
        return list(self[numbers])

    def __repr__(self) -> str:
        """Name, shape and type."""
        return f"Rows({self.name}: {list(self.shape)} {str(self.dtype).removeprefix('torch.')})"

    def _numbers(self, index: Any) -> Tensor:
        if isinstance(index, tuple):
            raise DataError(f"{user_line()}: index the rows first, and then what that gives: rows[3:7][:, 2].")
        numbers = torch.as_tensor(index)
        if numbers.dtype == torch.bool:
            if numbers.shape != self.shape[:1]:
                raise DataError(
                    f"{user_line()}: a mask over these rows has shape ({len(self)},), not {tuple(numbers.shape)}."
                )
            return numbers.nonzero().flatten()
        if numbers.numel() and numbers.is_floating_point():
            raise DataError(f"{user_line()}: rows are counted by whole numbers, not by {numbers.dtype}.")
        numbers = numbers.long().cpu()
        wrong = numbers[(numbers < -len(self)) | (numbers >= len(self))]
        if wrong.numel():
            number = int(wrong.flatten()[0])
            raise RowError(f"{user_line()}: there is no row {number}: {self.name} has {len(self)} rows.")
        return torch.where(numbers < 0, numbers + len(self), numbers)


@final
class Activations:
    """The activations of many prompts at some sites; `model.cache(...)` makes it, `Activations.load(folder)` reads it.

    `data["layers.5.output"]` is that site's rows, like a tensor [row, ...] on disk. It is also a map-style data set, so
    that a `torch.utils.data.DataLoader` takes it: `data[i]` is a dictionary of one row of every site.

    Attributes:
        folder: where it is.
        sites: the names of its sites.
        about: what was asked for when it was cached: model, weights, number type, versions, number of prompts.

    Example:
        ```python
        data = ip.Activations.load("folder")
        for batch in data.batches(4096, sites=["layers.5.output"], seed=0):
            train(batch["layers.5.output"])
        ```
    """

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        """Use `Activations.load`."""
        self.folder = folder
        self._tensors: dict[str, Any] = index["tensors"]
        self.sites: tuple[str, ...] = tuple(index["sites"])
        self._labels = [name for name in _ABOUT if name in self._tensors]
        self.about = {name: value for name, value in index.items() if name not in ("tensors", "shards")}
        self._shards = Shards(folder, index["shards"])

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Activations":
        """Open the data set in a folder; nothing of it is read yet.

        Args:
            folder: what `model.cache` was given as `out`.

        Raises:
            DataError: there is none, it was not finished, or a shard is missing or damaged.
        """
        path = Path(folder)
        index = read_index(path)
        if not index.get("complete"):
            raise DataError(
                f"The data set in {path} is not finished. Call model.cache(...) with the same settings and prompts: it "
                "goes on where it was cut off."
            )
        for shard in index["shards"]:
            file = path / shard["file"]
            if not file.is_file() or file.stat().st_size != shard["bytes"]:
                state = "damaged" if file.is_file() else "missing"
                raise DataError(
                    f"{file} is {state}. Call model.cache(...) with the same settings and prompts: it makes that shard "
                    "again."
                )
        return cls(path, index)

    @property
    def tokens(self) -> Rows:
        """The token of each row [row]."""
        return self._of("tokens")

    @property
    def prompt(self) -> Rows:
        """The number of the prompt that each row belongs to [row]."""
        return self._of("prompt")

    @property
    def position(self) -> Rows:
        """The position of each row in its prompt, counted from its first token [row]."""
        return self._of("position")

    def __len__(self) -> int:
        """How many rows there are."""
        return self._shards.count

    def __getitem__(self, what: Any) -> Any:
        """A site's rows by its name; or one row of everything, by its number."""
        if isinstance(what, str):
            return self._of(what if what in self._tensors else key_of(site_of(what)))
        return {name: self._of(name)[what] for name in (*self.sites, *self._labels)}

    def __getitems__(self, numbers: list[int]) -> list[dict[str, Tensor]]:
        """Several rows at once; what a DataLoader of torch asks for."""
        found = self[torch.as_tensor(numbers)]
        return [{name: value[at] for name, value in found.items()} for at in range(len(numbers))]

    def batches(
        self,
        size: int,
        sites: Sequence[str] | None = None,
        seed: int = 0,
        shuffle: bool = True,
        buffer_bytes: int = 256 * 2**20,
    ) -> Iterator[dict[str, Tensor]]:
        """All rows once, in batches.

        Shuffled reading goes through the disk in long stretches: a buffer is filled from 16 stretches at random places
        of the data set, and its rows are mixed. So rows of one batch come from 16 places, not from everywhere; a larger
        buffer does not add places, but makes the stretches longer and the reading faster. The order follows from
        `seed`, `size`, `buffer_bytes` and the data set. Give each epoch a seed of its own.

        Args:
            size: rows in a batch; the last one may have fewer.
            sites: which sites; all by default.
            seed: of the order.
            shuffle: False reads from first to last.
            buffer_bytes: about how much is held in memory at a time, once more while it is mixed.

        Yields:
            the sites' rows by name as they were asked for, each [row, ...]; `prompt`, and for token models `tokens`
            and `position`, say where the rows come from.
        """
        if not isinstance(size, int) or size < 1:
            raise DataError(f"{user_line()}: a batch has 1 or more rows, not {size!r}.")
        names = {name: self[name] for name in (self.sites if sites is None else sites)}
        names |= {name: self._of(name) for name in self._labels}
        return self._batches(size, names, seed if shuffle else None, buffer_bytes)

    def __repr__(self) -> str:
        """Rows, sites and model."""
        return f"Activations({len(self)} rows of {', '.join(self.sites)}; {self.about['model']}, {self.folder})"

    def __reduce__(self) -> tuple[Callable[[str], "Activations"], tuple[str]]:
        """A worker process of a DataLoader opens the folder anew."""
        return Activations.load, (str(self.folder),)

    def _of(self, name: str) -> Rows:
        if name not in self._tensors:
            raise DataError(f"{user_line()}: {self.folder} has no {name}; it has {', '.join(self._tensors)}.")
        return Rows(name, self._tensors[name], self._shards)

    def _batches(
        self, size: int, names: dict[str, Rows], seed: int | None, buffer_bytes: int
    ) -> Iterator[dict[str, Tensor]]:
        left: dict[str, Tensor] = {}
        for stretches, generator in self._buffers(size, names, seed, buffer_bytes):
            parts = {name: [left[name]] if left else [] for name in names}
            for start, stop in stretches:
                for name, rows in names.items():
                    parts[name].append(rows[start:stop])
            pool = {name: torch.cat(parts.pop(name)) for name in names}
            count = len(next(iter(pool.values())))
            order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
            for at in range(0, count - size + 1, size):
                yield {name: value[order[at : at + size]] for name, value in pool.items()}
            rest = order[count - count % size :]
            left = {name: value[rest] for name, value in pool.items()} if len(rest) else {}
        if left:
            yield left

    def _buffers(
        self, size: int, names: dict[str, Rows], seed: int | None, buffer_bytes: int
    ) -> Iterator[tuple[list[tuple[int, int]], torch.Generator | None]]:
        """The stretches of rows that go into each buffer."""
        width = sum(rows.dtype.itemsize * rows.shape[1:].numel() for rows in names.values())
        length = max(1, max(size, buffer_bytes // max(1, width)) // _BLOCKS)
        starts = torch.arange(0, len(self), length)
        generator = None
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            starts = starts[torch.randperm(len(starts), generator=generator)]
        for at in range(0, len(starts), _BLOCKS):
            yield [(start, min(start + length, len(self))) for start in starts[at : at + _BLOCKS].tolist()], generator
