"""The matrix: every model on every task by every method. What is there already is not run again."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, final, runtime_checkable

from torch import Tensor

from interpose.benchmark.cell import Cell, Identity, Outcome, run, unloaded
from interpose.benchmark.kept import Kept
from interpose.benchmark.record import Record
from interpose.benchmark.store import Store
from interpose.errors import InterposeError
from interpose.loading import load
from interpose.search.progress import Watcher
from interpose.trace import Model


@dataclass(frozen=True)
class Planned:
    """A cell that is to be run, and its key."""

    cell: Cell
    key: str


@runtime_checkable
class Watching(Protocol):
    """Whoever is told how far a matrix is."""

    def begun(self, label: str) -> None:
        """A cell has begun."""
        ...

    def stage(self, what: str, done: int, total: int) -> None:
        """The cell that runs is so far with one of its stages."""
        ...

    def cells(self, done: int, total: int, last: Record | None) -> None:
        """So many cells are there; the last of them, if any was run."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Whatever can run cells."""

    def identify(self, models: Sequence[tuple[str, str | None]]) -> Iterator[Identity | Exception]:
        """Which weights each model (a name and a device) has, or why it cannot be loaded."""
        ...

    def run(
        self, work: Sequence[Planned], hours: float | None, watching: Watching
    ) -> Iterator[tuple[Planned, Outcome]]:
        """Run cells, in any order; each is stored before the next is asked for."""
        ...

    def close(self) -> None:
        """No more cells will come."""
        ...


def bench(
    cells: Sequence[Cell], store: Store, engine: Engine, hours: float | None, watching: Watching
) -> list[tuple[Cell, Record]]:
    """Run all cells that are not there yet.

    Args:
        cells: what to run.
        store: where cells lie.
        engine: what runs them.
        hours: the most that one cell may take; a cell that would take longer stays blank, with that time.
        watching: told of progress.

    Returns:
        every cell with its record, in the order of `cells`.
    """
    models = list(dict.fromkeys((cell.model, cell.device) for cell in cells))
    known = dict(zip(models, engine.identify(models), strict=True))
    records: dict[int, Record] = {}
    work: dict[int, Planned] = {}
    for number, cell in enumerate(cells):
        identity = known[cell.model, cell.device]
        if isinstance(identity, Exception):
            records[number] = unloaded(cell, identity)
            store.put(cell, Outcome(records[number], None))
            continue
        try:
            planned = Planned(cell, cell.key(identity))
        except InterposeError as error:
            records[number] = unloaded(cell, error)
            continue
        found = store.find(cell, planned.key, hours)
        if found is not None:
            records[number] = found
        else:
            work[number] = planned
    watching.cells(len(records), len(cells), None)
    numbers = {planned.key: number for number, planned in work.items()}
    for planned, outcome in engine.run(list(work.values()), hours, watching):
        store.put(planned.cell, outcome)
        records[numbers[planned.key]] = outcome.record
        watching.cells(len(records), len(cells), outcome.record)
    return [(cell, records[number]) for number, cell in enumerate(cells)]


@final
class Local:
    """Runs cells here, one after the other. A cell that was cut off goes on where it stopped.

    Random circuits do not depend on the method, so that cells of one model and task run many of the same circuits; what
    one has measured the next does not measure again.

    Args:
        folder: where unfinished cells keep what they have measured.
    """

    def __init__(self, folder: Path) -> None:
        """Load nothing yet."""
        self._folder, self._measured = folder, defaultdict[str, dict[str, Tensor]](dict)

    def identify(self, models: Sequence[tuple[str, str | None]]) -> Iterator[Identity | Exception]:
        """See `Engine.identify`."""
        for name, device in models:
            yield identified(name, device)

    def run(
        self, work: Sequence[Planned], hours: float | None, watching: Watching
    ) -> Iterator[tuple[Planned, Outcome]]:
        """See `Engine.run`."""
        for planned in work:
            watching.begun(planned.cell.label)
            kept = Kept(self._folder, {"cell": planned.key}, self._measured[planned.cell.question])
            yield planned, outcome_of(planned, hours, watching.stage, kept)
            kept.clear()

    def close(self) -> None:
        """See `Engine.close`."""


def identified(name: str, device: str | None) -> Identity | Exception:
    """Which weights a model has, or why it cannot be loaded."""
    try:
        return Identity.of(_loaded(name, device))
    except Exception as error:
        return error


def outcome_of(planned: Planned, hours: float | None, tell: Watcher | None, kept: Kept | None) -> Outcome:
    """Load the model of a cell, unless it is the last one that was loaded, and run the cell.

    Args:
        planned: the cell.
        hours: the most that it may take.
        tell: told of progress.
        kept: what was measured before; filled as results arrive.
    """
    cell, key = planned.cell, planned.key
    try:
        model = _loaded(cell.model, cell.device)
    except Exception as error:
        return Outcome(unloaded(cell, error).model_copy(update={"key": key}), None)
    return run(cell, key, model, hours, tell, kept)


@lru_cache(maxsize=1)
def _loaded(name: str, device: str | None) -> Model:
    return load(name, device=device)
