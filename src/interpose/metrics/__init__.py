"""Pure functions from a model's output and a target to a number.

Each file is a metric, a function of the file's own name, and is found by it (see `interpose.discovery`):
`interpose.metrics.logit_difference` is the function in `logit_difference.py`.
"""

import sys
from types import ModuleType
from typing import Any

from interpose import discovery


class _Metrics(ModuleType):
    """This package, where a metric's name always means the function.

    A metric and its file have one name, and importing the file makes Python bind that name here to the module. Without
    this class `interpose.metrics.kl` would be a function or a module depending on who imported what first.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        function = getattr(value, name, None) if isinstance(value, ModuleType) else None
        ModuleType.__setattr__(self, name, function if callable(function) else value)


sys.modules[__name__].__class__ = _Metrics


def __getattr__(name: str) -> Any:
    return discovery.attribute(__name__, name)


def __dir__() -> list[str]:
    return discovery.names(__name__)
