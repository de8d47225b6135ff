"""From a name, a folder, a config or a module to a Model that runs. One file a source.

The only package that imports model libraries, and only when a model is asked for: importing this one loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interpose.loading.fresh import build as build
    from interpose.loading.given import wrap as wrap
    from interpose.loading.names import load as load

_HOME = {"load": "names", "wrap": "given", "build": "fresh"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"interpose.loading has no {name}; it has {', '.join(_HOME)}")
    return getattr(import_module(f"interpose.loading.{_HOME[name]}"), name)
