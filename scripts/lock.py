"""Writes requirements.lock: the exact version of every package that interpose, its tests and its documentation need.

    .venv/bin/python scripts/lock.py             from what is installed in .venv now
    .venv/bin/python scripts/lock.py --upgrade   after bringing it to the newest versions that fit; torch stays as it is
    .venv/bin/python scripts/lock.py --check     only say whether the lock is what the first would write

Packages that come with a CUDA build of torch are left out: torch is installed first and brings its own. So is the extra
`peers`: other libraries, which `make bench` installs into an environment of its own.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
PYTHONS = ("3.11", "3.12", "3.13")
WITH_TORCH = re.compile(r"nvidia-|cuda-|triton")
APART = "peers"
HEADER = """\
# Every version that was tested, for Python 3.11 and later. `make setup` installs torch first, on its own, so that the
# CPU build is taken where one is at hand; this file then holds it in place. Written by scripts/lock.py.
"""


def main() -> int:
    """Write the lock, or check it.

    Returns:
        The exit code: 1 where `--check` finds a lock that is out of date.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="install the newest versions that fit first")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the lock is out of date")
    arguments = parser.parse_args()
    if arguments.upgrade:
        _upgrade()
    text = lock_text()
    if arguments.check:
        same = LOCK.read_text(encoding="utf-8") == text
        print("requirements.lock is up to date" if same else "requirements.lock is out of date: run scripts/lock.py")
        return 0 if same else 1
    LOCK.write_text(text, encoding="utf-8")
    print(f"wrote {LOCK.name}: {text.count('==')} packages")
    return 0


def lock_text() -> str:
    """What the lock would say, made from the packages that are installed now."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, tuple[str, ...]]] = set()
    todo = list(_declared())
    while todo:
        requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), tuple(sorted(requirement.extras))
        if (name, extras) in seen or WITH_TORCH.match(name):
            continue
        seen.add((name, extras))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(
                f"{name} is needed but not installed; run: .venv/bin/python scripts/lock.py --upgrade"
            ) from None
        versions[name] = found.version.split("+")[0]
        todo += [need for need in map(Requirement, found.requires or ()) if _applies(need, extras)]
    return HEADER + "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def _declared() -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for group in (project["dependencies"], *(extras[name] for name in extras if name != APART)):
        yield from map(Requirement, group)


def _applies(requirement: Requirement, extras: tuple[str, ...]) -> bool:
    """Whether a package needs this on Linux, under any Python that the project supports."""
    if requirement.marker is None:
        return True
    places = [
        {"python_version": v, "python_full_version": f"{v}.0", "extra": e} for v in PYTHONS for e in extras or ("",)
    ]
    return any(requirement.marker.evaluate(place) for place in places)


def _upgrade() -> None:
    torch = distribution("torch").version.split("+")[0]
    wanted = [str(requirement) for requirement in _declared() if requirement.name != "torch"]
    command = ["-m", "pip", "install", "--upgrade", "--upgrade-strategy", "eager", f"torch=={torch}", *wanted]
    subprocess.run([sys.executable, *command], check=True)


if __name__ == "__main__":
    sys.exit(main())
