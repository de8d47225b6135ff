"""Makes `.venv` in this checkout: torch first, then everything that requirements.lock pins, then interpose itself.

A second run finds the environment as it should be and returns at once. A run that is stopped half-way is noticed by the
next one, which starts over. Needs only Python's standard library; `make setup` finds a Python and calls it.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
READY = VENV / ".interpose-ready"
"""Says for which lock, project and folder the environment is complete."""
UNFINISHED = VENV / ".interpose-unfinished"
"""Is there while packages are being written, so that the next run knows when one was cut off."""
LOG = VENV / "setup.log"
FREE_GB = 4
UNREACHABLE = (
    r"connection broken by|NewConnectionError|name resolution|Network is unreachable|ConnectTimeout|ProxyError"
)


class SetupError(Exception):
    """One sentence that says what is missing."""


def main() -> int:
    """Make the environment, or find it made.

    Returns:
        The exit code: 0, 1 when something is missing, 130 when it was stopped.
    """
    try:
        with _alone():
            if not _is_ready():
                _build()
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: Stopped half-way; run it again to go on.", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Lets one run at a time through; the lock is on the folder itself and ends with the process."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _wanted() -> str:
    """What the environment is made from; it also names the folder, because scripts in it hold its full path."""
    digest = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    return f"{digest} {ROOT}\n"


def _is_ready() -> bool:
    return PYTHON.exists() and READY.exists() and READY.read_text(encoding="utf-8") == _wanted()


def _build() -> None:
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < FREE_GB:
        raise SetupError(f"The disk is too full: {free:.1f} GB are free at {ROOT} and {FREE_GB} GB are needed.")
    repairable = _is_repairable()
    VENV.mkdir(exist_ok=True)
    UNFINISHED.touch()
    READY.unlink(missing_ok=True)
    if not repairable:
        _clear()
    started = time.monotonic()
    print("setup: making .venv; this takes minutes, and longer where torch comes with CUDA", flush=True)
    print("setup: to see how far it is: tail -f .venv/setup.log", flush=True)
    if not PYTHON.exists():
        _make_venv()
    LOG.write_text("", encoding="utf-8")
    torch = _pinned("torch")
    others = VENV / "constraints.txt"
    others.write_text(LOCK.read_text(encoding="utf-8").replace(torch, ""), encoding="utf-8")
    _pip(torch, "--constraint", str(others.relative_to(ROOT)), torch)
    _pip("everything else that requirements.lock pins", "--requirement", LOCK.name)
    _pip("interpose, from this folder", "--no-build-isolation", "--no-deps", "--editable", ".")
    READY.with_suffix(".new").write_text(_wanted(), encoding="utf-8")
    READY.with_suffix(".new").replace(READY)
    UNFINISHED.unlink(missing_ok=True)
    print(f"setup: done in {time.monotonic() - started:.0f} s", flush=True)


def _is_repairable() -> bool:
    """Whether pip can bring the environment up to date: no run on it was cut off, and it belongs to this folder."""
    if UNFINISHED.exists() or not PYTHON.exists():
        return False
    return not READY.exists() or READY.read_text(encoding="utf-8").endswith(f" {ROOT}\n")


def _clear() -> None:
    """Empties the environment; what marks it as unfinished stays, in case this is cut off as well."""
    for path in VENV.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != UNFINISHED:
            path.unlink()


def _make_venv() -> None:
    # The base interpreter: this one may itself live in the .venv that was just removed.
    base = getattr(sys, "_base_executable", None) or sys.executable
    made = subprocess.run([base, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if made.returncode:
        last = (made.stdout + made.stderr).strip().splitlines()[-1:]
        raise SetupError(f"{base} could not make a virtual environment ({''.join(last)}).")


def _pinned(name: str) -> str:
    line = re.search(rf"^{name}==\S+$", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if line is None:
        raise SetupError(f"{LOCK.name} does not pin {name}; make the lock again with scripts/lock.py.")
    return line.group()


def _pip(what: str, *arguments: str) -> None:
    print(f"setup: installing {what}", flush=True)
    command = [str(PYTHON), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *arguments]
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"$ pip install {' '.join(arguments)}\n")
        log.flush()
        start = log.tell()
        # PIP_USER, where a person has set it, is refused by pip inside an environment.
        environment = {**os.environ, "PIP_USER": "0"}
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False).returncode
    if code:
        output = LOG.read_bytes()[start:].decode("utf-8", "replace")
        if "No space left on device" in output:
            raise SetupError(f"The disk filled up while installing {what}; {FREE_GB} GB are needed.")
        # pip ended by itself, so every package is whole and the next run can go on from here.
        UNFINISHED.unlink()
        raise SetupError(_reason(what, output))


def _reason(what: str, output: str) -> str:
    if re.search(UNREACHABLE, output):
        return (
            f"There is no network: pip reached no package index for {what}; connect, or set PIP_INDEX_URL to a mirror."
        )
    if missing := re.search(r"requirement (\S+) \(from versions: none\)", output):
        python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        return f"pip found no {missing.group(1)}: there is no network, or no build of it for {python} on this machine."
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")] or output.strip().splitlines()[-1:]
    return f"pip could not install {what} ({''.join(errors[:1]).removeprefix('ERROR: ')}); see .venv/setup.log."


if __name__ == "__main__":
    sys.exit(main())
