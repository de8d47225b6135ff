"""One causal instrument for neural networks.

Write an intervention once, run it on any PyTorch model; search for the parts that carry a behaviour; prove what you
found with controls; look at it. Importing this package loads no torch: names are found when they are first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "load": "interpose.loading",
    "wrap": "interpose.loading",
    "build": "interpose.loading",
    "grad": "interpose.trace",
    "Model": "interpose.trace",
    "Edit": "interpose.trace",
    "Activations": "interpose.trace",
    "Batch": "interpose.graph",
    "Feed": "interpose.graph",
    "Graph": "interpose.graph",
    "pairs": "interpose.tasks.base",
    "read_pairs": "interpose.tasks.base",
    "write_pairs": "interpose.tasks.base",
    "Pairs": "interpose.tasks.base",
    "Scores": "interpose.search",
    "Circuit": "interpose.search",
}
_PACKAGES = ("tasks", "mediators", "methods", "metrics", "benchmark", "report", "errors")

__all__ = [*_NAMES, *_PACKAGES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """Find a public name in the package that has it."""
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"interpose has no {name!r}; it has {', '.join(sorted(__all__))}.")


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*__all__, "__version__"])
