"""How a backend tells how many runs are done before it gives any of them back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_counter: ContextVar[Callable[[int], None] | None] = ContextVar("run counter", default=None)


@contextmanager
def counting(count: Callable[[int], None]) -> Iterator[None]:
    """Let `count` be told how many more runs are done, inside."""
    token = _counter.set(count)
    try:
        yield
    finally:
        _counter.reset(token)


def count(runs: int) -> None:
    """So many more runs are done."""
    counter = _counter.get()
    if counter is not None:
        counter(runs)
