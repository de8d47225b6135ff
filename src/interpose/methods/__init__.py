"""The ways to search for the units that carry a behaviour.

Each file is a method and is found by its name (see `interpose.discovery`): `interpose.methods.EAPIG` is the class in
`eap_ig.py`, and `interpose methods` lists them all.
"""

from typing import Any

from interpose import discovery


def __getattr__(name: str) -> Any:
    return discovery.attribute(__name__, name)


def __dir__() -> list[str]:
    return discovery.names(__name__)
