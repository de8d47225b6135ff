"""What a person sees on stderr while a model is fetched or made: a bar on a terminal, one line elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def tell(text: str) -> None:
    """Say one sentence on stderr."""
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def stage(text: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show that something slow is under way.

    Args:
        text: what is being done.
        total: how much there is to do; None where that is unknown.

    Yields:
        a function to call with how much is done so far.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        tell(text)
        yield lambda _: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(text, total=total)
        yield lambda done: progress.update(task, completed=done)
