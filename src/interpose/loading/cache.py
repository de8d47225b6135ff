"""The user's cache of prepared models: where it is, how two processes share it, how damage is noticed.

A prepared model is a folder with an `index.json` of the size and sha256 of each of its files. It is made in a scratch
folder beside its place and moved there in one step, so a folder that is in its place was once whole.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interpose.errors import LoadError

INDEX = "index.json"
_SCRATCH = ".making-"
_BLOCK = 1 << 22


def home() -> Path:
    """The cache folder: `INTERPOSE_HOME`, else `interpose` in the platform's folder for user caches."""
    chosen = os.environ.get("INTERPOSE_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "interpose"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "interpose"


def sha256(path: Path) -> str:
    """Hash of a file's content, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def lock(folder: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder alone among all processes and threads; the lock ends with its holder, however that ends.

    Args:
        folder: made where it is missing.
        waiting: called once, with the holder's process id, where another one holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            waiting(file.read().strip() or "of an unknown number")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """An empty folder inside `folder`, gone afterwards. Hold the lock: what a killed holder left is removed first."""
    for left in folder.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
    path = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=folder))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def require_room(folder: Path, needed: int) -> None:
    """Refuse to start what the disk cannot hold.

    Args:
        folder: a folder on the disk meant.
        needed: bytes.

    Raises:
        LoadError: there is less.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LoadError(
            f"The model cache {folder} has {free / 1e9:.1f} GB free and {needed / 1e9:.1f} GB are needed. "
            "Make room, or set INTERPOSE_HOME to a folder on another disk."
        )


def seal(folder: Path) -> None:
    """Write the index of a finished folder, after its files are safely on the disk."""
    entries = {}
    readable = folder.stat().st_mode & 0o666  # some libraries write files that no other user may read
    for path in sorted(path for path in folder.iterdir() if path.name != INDEX):
        path.chmod(readable)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        stat = path.stat()
        entries[path.name] = {"bytes": stat.st_size, "sha256": sha256(path), "mtime_ns": stat.st_mtime_ns}
    _write_index(folder, entries)


def publish(made: Path, place: Path) -> None:
    """Move a sealed folder to its place. What stood there goes into the scratch folder that `made` lies in."""
    if place.exists():
        os.replace(place, made.parent / "replaced")  # noqa: PTH105 (one style for both moves)
    os.replace(made, place)  # noqa: PTH105


def fault(folder: Path) -> str:
    """What is wrong with a prepared folder, in one clause; empty where nothing is.

    Sizes are compared every time. Content is compared where a file's time is not the recorded one, as after a copy; if
    it is right, the new time is recorded, so the next look is quick again.
    """
    entries = index(folder)
    if not entries:
        return f"{INDEX} is missing or unreadable"
    moved = False
    for name, entry in entries.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        stat = path.stat()
        if stat.st_size != entry["bytes"]:
            return f"{name} has {stat.st_size} bytes, expected {entry['bytes']}"
        if stat.st_mtime_ns != entry["mtime_ns"]:
            found = sha256(path)
            if found != entry["sha256"]:
                return f"{name} has sha256 {found}, expected {entry['sha256']}"
            entry["mtime_ns"] = stat.st_mtime_ns
            moved = True
    if moved and os.access(folder, os.W_OK):
        _write_index(folder, entries)
    return ""


def index(folder: Path) -> dict[str, dict[str, Any]]:
    """The recorded files of a prepared folder: name to `bytes`, `sha256`, `mtime_ns`; empty where unreadable."""
    try:
        entries = json.loads((folder / INDEX).read_text(encoding="utf-8"))["files"]
        return {
            str(name): {key: entry[key] for key in ("bytes", "sha256", "mtime_ns")} for name, entry in entries.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_index(folder: Path, entries: dict[str, dict[str, Any]]) -> None:
    handle, temporary = tempfile.mkstemp(prefix=_SCRATCH, dir=folder)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"files": entries}, file, indent=1)
    Path(temporary).chmod(folder.stat().st_mode & 0o666)
    Path(temporary).replace(folder / INDEX)
