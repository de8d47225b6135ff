"""On what something was measured: the processor, and the versions of what ran."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import interpose


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions(others: Sequence[str]) -> dict[str, str]:
    """The versions of Python, interpose and what it rests on, and of other distributions."""
    found = {"python": platform.python_version(), "interpose": interpose.__version__}
    for name in ["torch", "transformers", "numpy", *others]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
