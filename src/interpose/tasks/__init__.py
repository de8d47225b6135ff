"""What a model is asked to do: counterfactual pairs, their answers and the causal model behind them.

Each file is a task and is found by its name (see `interpose.discovery`): `interpose.tasks.IOI` is the class in
`ioi.py`.
"""

from typing import Any

from interpose import discovery


def __getattr__(name: str) -> Any:
    return discovery.attribute(__name__, name)


def __dir__() -> list[str]:
    return discovery.names(__name__)
