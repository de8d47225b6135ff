"""A folder of shards: tensors by rows in safetensors files, each whole or absent, and a JSON index of them.

A file is written under another name, brought to the disk, and renamed, so that a process that is killed leaves whole
files only. What a shard holds of the prompts stands in its own header; the index says what was asked for, and, once
everything is there, what there is.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interpose.errors import DataError

INDEX = "index.json"
FORMAT = 1
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"shard-{number:05d}.safetensors"


@final
class Folder:
    """The folder of a data set that is being written.

    Attributes:
        path: the folder.
        known: the index as it was found; empty where no shard was finished.

    Args:
        path: the folder; made where it is missing.

    Raises:
        DataError: it cannot be made, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        """Make the folder, or look at what is there."""
        self.path = path
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
            left = [each.name for each in sorted(path.iterdir()) if not _unfinished(each)]
        if left and INDEX not in left:
            raise DataError(
                f"{path} holds other files ({', '.join(left[:3])}{', ...' if left[3:] else ''}) and no data set. "
                "Write to a new or an empty folder."
            )
        found = read_index(path) if left else {}
        # Where no shard was finished, nothing is lost by other settings.
        self.known = found if any(name.startswith("shard-") for name in left) else {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder alone among all processes; the lock ends with its holder, however that ends.

        Raises:
            DataError: another process is writing there.
        """
        with explained(self.path):
            handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in filter(_unfinished, self.path.iterdir()):
                left.unlink()
            yield
        except BlockingIOError:
            raise DataError(
                f"Another process is writing to {self.path}. Wait for it, or choose another folder."
            ) from None
        finally:
            os.close(handle)

    def write_index(self, content: Mapping[str, Any]) -> None:
        """Replace the index."""
        with _whole(self.path / INDEX) as file:
            file.write(json.dumps({"interpose": "activations", "format": FORMAT, **content}, indent=1).encode())

    def write_shard(self, number: int, parts: Mapping[str, Sequence[Tensor]], about: Mapping[str, str]) -> None:
        """Write a shard.

        Args:
            number: which.
            parts: for each name, tensors [row, ...] that follow one another.
            about: what its header says of it.

        Raises:
            DataError: the disk is full, or something else is wrong with the folder.
        """
        # Wide numbers first, so that each tensor begins where numbers of its kind may.
        names = sorted(parts, key=lambda name: (-parts[name][0].element_size(), name))
        header: dict[str, Any] = {"__metadata__": dict(about)}
        at = 0
        for name in names:
            first, size = parts[name][0], sum(part.nbytes for part in parts[name])
            shape = [sum(len(part) for part in parts[name]), *first.shape[1:]]
            header[name] = {"dtype": _NAMES[first.dtype], "shape": shape, "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with _whole(self.path / shard_name(number)) as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                for part in parts[name]:
                    file.write(part.contiguous().view(-1).view(torch.uint8).numpy().data)

    def shard(self, number: int) -> dict[str, str] | None:
        """What the header of a shard says; None where the file is absent or damaged."""
        path = self.path / shard_name(number)
        try:
            with safe_open(path, framework="pt") as file:
                return file.metadata() or None
        except (SafetensorError, OSError):
            return None

    def read(self, number: int, name: str) -> Tensor:
        """A tensor [row, ...] of a shard that is there; what is not looked at is not read."""
        with safe_open(self.path / shard_name(number), framework="pt") as file:
            return file.get_tensor(name)

    def describe(self, number: int) -> dict[str, Any]:
        """Size, rows and tensors of a shard that is there, for the index."""
        path = self.path / shard_name(number)
        with safe_open(path, framework="pt") as file:
            kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            rows = len(next(iter(kept.values())))
            kinds = {
                name: {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape[1:])}
                for name, value in kept.items()
            }
            return {"file": path.name, "bytes": path.stat().st_size, "rows": rows, "tensors": kinds}


def read_index(path: Path) -> dict[str, Any]:
    """The index of a folder.

    Raises:
        DataError: there is none, or it is not one that this version reads.
    """
    if not (path / INDEX).is_file():
        raise DataError(
            f"There is no data set in {path} (no {INDEX}). Write the folder that model.cache(...) was given."
        )
    try:
        found = json.loads((path / INDEX).read_bytes())
        kind, version = found.get("interpose"), found.get("format")
    except (AttributeError, ValueError, OSError) as error:
        raise DataError(f"{path / INDEX} is damaged ({error}). Remove the folder, and cache into it again.") from error
    if kind != "activations":
        raise DataError(f"{path / INDEX} belongs to something else. Write to a new or an empty folder.")
    if version != FORMAT:
        raise DataError(
            f"{path} has format {version}, and this interpose reads format {FORMAT}. Cache it again, or install the "
            "version that wrote it."
        )
    return found


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say what to do where the system refuses.

    Raises:
        DataError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"The disk of {path} is full. What was written before is kept: free some space and make the same call "
                "again; it goes on there."
            ) from error
        raise DataError(f"{path} cannot be written: {error.strerror or error}. Choose another folder.") from error


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that is there whole when the block ends, or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        with explained(path.parent):
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        part.unlink(missing_ok=True)


def _unfinished(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".part")
