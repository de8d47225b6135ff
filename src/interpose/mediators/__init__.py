"""The units that may carry a cause: streams, blocks, heads, positions, edges.

Each file is a kind of unit and is found by its name (see `interpose.discovery`): `interpose.mediators.Edges` is the
class in `edges.py`.
"""

from typing import Any

from interpose import discovery


def __getattr__(name: str) -> Any:
    return discovery.attribute(__name__, name)


def __dir__() -> list[str]:
    return discovery.names(__name__)
