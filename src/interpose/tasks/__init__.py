"""What a model is asked to do: counterfactual pairs, their answers and the causal model behind them.

Each file is a task and is found by its name (see `interpose.discovery`): `interpose.tasks.IOI` is the class in
`ioi.py`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpose import discovery
from interpose.errors import UsageError

if TYPE_CHECKING:
    from interpose.tasks.base import Task

FILE_ENDINGS: tuple[str, ...] = (".jsonl", ".json", ".csv")
"""What a file of pairs ends in: JSON lines, auto-circuit's JSON, EAP-IG's CSV; see `interpose.read_pairs`."""


def named(name: str) -> "Task":
    """The task that a person writes as `ioi`, or as `mine.jsonl` where it is a file of pairs.

    Args:
        name: the name of a task, or the path of a file of pairs.

    Returns:
        The task, with its default settings.

    Raises:
        UsageError: there is no such task, or a file has another ending.
    """
    if name.lower().endswith(FILE_ENDINGS):
        from interpose.tasks._own import Own

        return Own(name)
    if Path(name).suffix or Path(name).name != name:
        raise UsageError(
            f"{name!r} is no task; a file of pairs ends in {', '.join(FILE_ENDINGS)}, and `interpose tasks` lists the "
            "tasks that have a name."
        )
    return discovery.load(__name__, name)()


def __getattr__(name: str) -> Any:
    return discovery.attribute(__name__, name)


def __dir__() -> list[str]:
    return discovery.names(__name__)
