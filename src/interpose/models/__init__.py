"""What each architecture calls its parts: a table, one file a family. No torch.

A family is found by its file: every module here that defines `FAMILY` is one.
"""

import functools
import importlib
import pkgutil

from interpose.models.table import Dims as Dims, Family as Family, Place as Place


@functools.cache
def families() -> dict[str, Family]:
    """Every family that has a table, by `config.model_type`."""
    found: dict[str, Family] = {}
    for info in pkgutil.iter_modules(__path__):
        family = getattr(importlib.import_module(f"{__name__}.{info.name}"), "FAMILY", None)
        if family is not None:
            found.update(dict.fromkeys(family.model_types, family))
    return found


def find(model_type: str | None) -> Family | None:
    """The table for a `config.model_type`, or None: such a model works by module path."""
    return families().get(model_type or "")
