"""Progress on the terminal: a bar for each stage or for many cells, with the time it still takes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from interpose.search.progress import Watcher, watching

if TYPE_CHECKING:
    from interpose.benchmark.record import Record


@contextmanager
def bars() -> Iterator[Watcher]:
    """Show all progress made inside on standard error; where that is no terminal, a line as each stage ends.

    Yields:
        what a stage tells of its progress: what is done, how far, of how much.
    """
    console = Console(stderr=True, highlight=False)
    with _progress(console) as progress:
        tasks = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)
            if done == total and not console.is_terminal:
                print(f"{what}: {total} done", file=sys.stderr)

        with watching(tell):
            yield tell


@final
class Board:
    """Two bars: all cells, and below them the stage of the cell that runs; without a terminal, a line a cell.

    Args:
        progress: draws them.
    """

    def __init__(self, progress: Progress) -> None:
        """Show the bar of the cells."""
        self._progress = progress
        self._all = progress.add_task("cells", total=None)
        self._one = progress.add_task("", total=None, visible=False)
        self._label = self._what = ""

    def begun(self, label: str) -> None:
        """A cell has begun."""
        self._label, self._what = label, ""
        self._progress.reset(self._one, total=None, description=f"  {label}", visible=True)

    def stage(self, what: str, done: int, total: int) -> None:
        """The cell that runs is so far with one of its stages."""
        if what != self._what:
            self._what = what
            self._progress.reset(self._one, total=total, description=f"  {self._label}: {what}")
        self._progress.update(self._one, completed=done, total=total)

    def cells(self, done: int, total: int, last: "Record | None") -> None:
        """So many cells are there; the last of them, if any was run."""
        if last is None:
            # Those that were there before say nothing of how long the others take.
            self._progress.reset(self._all, total=total, completed=done)
        self._progress.update(self._all, completed=done, total=total)
        if not self._progress.console.is_terminal:
            what = f": {last.label}, {last.status}" if last else " are there"
            print(f"{done} of {total} cells{what}", file=sys.stderr)


@contextmanager
def board() -> Iterator[Board]:
    """Show the progress of many cells on standard error."""
    console = Console(stderr=True, highlight=False)
    with _progress(console) as progress:
        yield Board(progress)


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)
