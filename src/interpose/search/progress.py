"""How long work tells whoever is watching how far it is."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

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


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The items, one by one, telling the watcher after each."""
    tell = _watcher.get()
    if tell is not None:
        tell(what, 0, total)
    for done, item in enumerate(items, 1):
        yield item
        if tell is not None:
            tell(what, done, total)
