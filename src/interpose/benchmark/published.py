"""Numbers that others have published, to stand beside ours: `published.toml`, with where they were found."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Published:
    """One published cell.

    Attributes:
        model: the last part of the model's name, in lower case.
        task: our name of the task.
        method: our name of the method, with settings.
        as_published: what the source calls the method.
        source: where the numbers stand.
        cpr: area under faithfulness; higher is better.
        cmd: area between faithfulness and 1; lower is better.
        auroc: against a circuit that is known.
    """

    model: str
    task: str
    method: str
    as_published: str
    source: str
    cpr: float | None = None
    cmd: float | None = None
    auroc: float | None = None


def published(model: str, task: str, method: str) -> Published | None:
    """What was published of a model, a task and a method; None where nothing is known.

    Args:
        model: as `load` takes it.
        task: our name of the task.
        method: our name of the method, with settings that are not its own as in `eap:ablation=mean`.
    """
    return _rows().get((model.rpartition("/")[2].lower(), task, method))


@cache
def _rows() -> dict[tuple[str, str, str], Published]:
    data = tomllib.loads((files("interpose.benchmark") / "published.toml").read_text(encoding="utf-8"))
    rows = [_row(dict(cell), data) for cell in data["cells"]]
    return {(each.model, each.task, each.method): each for each in rows}


def _row(cell: dict[str, Any], data: dict[str, Any]) -> Published:
    label = cell.pop("method")
    return Published(method=data["methods"][label], as_published=label, source=data["source"], **cell)
