"""How long work tells whoever is watching how far it is."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from interpose.graph.progress import counting

Watcher = Callable[[str, int, int], None]
"""Told what is being done, how many steps are done and how many there are."""

_watcher: ContextVar[Watcher | None] = ContextVar("progress watcher", default=None)

T = TypeVar("T")


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Let `watcher` be told of all progress made inside."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def track(items: Iterable[T], total: int, what: str, runs_each: int = 1) -> Iterator[T]:
    """The items, one by one, telling the watcher after each, and while a backend does the runs of many at once.

    Args:
        items: the items.
        total: how many there are.
        what: what is being done.
        runs_each: how many runs an item takes.
    """
    tell = _watcher.get()
    if tell is None:
        yield from items
        return
    done = runs = said = 0

    def say(now: int) -> None:
        nonlocal said
        if now > said:
            said = now
            tell(what, min(now, total), total)

    def count(more: int) -> None:
        nonlocal runs
        runs += more
        say(runs // runs_each)

    tell(what, 0, total)
    iterator = iter(items)
    while True:
        try:
            with counting(count):
                item = next(iterator)
        except StopIteration:
            return
        yield item
        done += 1
        say(done)
