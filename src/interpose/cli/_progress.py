"""Progress on the terminal: a bar for each stage, with the time it still takes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from interpose.search.progress import Watcher, watching


@contextmanager
def bars() -> Iterator[Watcher]:
    """Show all progress made inside on standard error; where that is no terminal, a line as each stage ends.

    Yields:
        what a stage tells of its progress: what is done, how far, of how much.
    """
    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)
            if done == total and not console.is_terminal:
                print(f"{what}: {total} done", file=sys.stderr)

        with watching(tell):
            yield tell
