"""Fetch one pinned wheel with pip, from whatever index pip is set up for here."""

import os
import sys
from pathlib import Path

from interpose.errors import DownloadError
from interpose.loading import cache, child, progress

# pip's own cache is left out: a damaged copy in it would come back each time.
_DOWNLOAD = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
_QUIETLY = ["--no-input", "--disable-pip-version-check", "--progress-bar=off"]


def wheel(package: str, into: Path, size: int) -> Path:
    """Download a wheel, without what it depends on; nothing of it is installed or run.

    Args:
        package: `name==version`.
        into: an empty folder; pip's own temporary files go there too.
        size: its size in bytes, for the progress bar.

    Returns:
        the wheel's path.

    Raises:
        DownloadError: pip is missing, or could not fetch it; the message gives pip's reason and what to do.
    """
    kept, log = into / "kept", into / "pip.log"
    arguments = [*_DOWNLOAD, *_QUIETLY, "--dest", str(kept), package]
    with progress.stage(f"Fetching {package} with pip ({size / 1e6:.0f} MB)", size) as done:
        code = child.run(arguments, log, {"TMPDIR": str(into)}, lambda: done(_bytes_under(into)))
    if code != 0:
        raise DownloadError(_reason(package, child.said(log)))
    found = sorted(kept.glob("*.whl"))
    if len(found) != 1:
        raise DownloadError(f"pip was asked for the wheel of {package} and brought {[path.name for path in found]}.")
    return found[0]


def check(path: Path, expected: str, what: str) -> None:
    """Compare a file with its pinned hash.

    Args:
        path: the file.
        expected: its sha256 as hex.
        what: what it is called in the message.

    Raises:
        DownloadError: it is another file.
    """
    found = cache.sha256(path)
    if found != expected:
        raise DownloadError(
            f"{what} is not the pinned file: expected sha256 {expected}, got {found} ({path.stat().st_size} bytes). "
            "Nothing of it was kept. Try again; if it stays so, set PIP_INDEX_URL=https://pypi.org/simple."
        )


def _bytes_under(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except FileNotFoundError:  # pip moved it meanwhile
                continue
    return total


def _reason(package: str, lines: list[str]) -> str:
    if any("No module named pip" in line for line in lines):
        return (
            f"{package} is fetched with pip, and this Python ({sys.executable}) has none. "
            f"Write `{sys.executable} -m ensurepip` and try again."
        )
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-1:]
    reason = errors[0].rstrip(".") if errors else "it gave no reason"
    return (
        f"pip could not fetch {package}: {reason}. Tried: {sys.executable} {' '.join(_DOWNLOAD[:4])} {package}. "
        "Connect to a package index (PIP_INDEX_URL), or put the wheel into a folder and set PIP_FIND_LINKS to it."
    )
