import contextvars
import threading

import pytest

from interpose.search.progress import track, watching

Told = list[tuple[str, int, int]]


def test_what_is_tracked_is_passed_on_and_told_step_by_step() -> None:
    told: Told = []
    with watching(lambda *progress: told.append(progress)):
        assert list(track("abc", 3, "spelling")) == ["a", "b", "c"]
    assert told == [("spelling", done, 3) for done in range(4)]


def test_a_step_is_told_when_it_is_done_and_not_before() -> None:
    told: Told = []
    with watching(lambda *progress: told.append(progress)):
        items = track("ab", 2, "spelling")
        assert told == []
        next(items)
        assert told == [("spelling", 0, 2)]
        next(items)
        assert told[-1] == ("spelling", 1, 2)


def test_nobody_needs_to_watch() -> None:
    assert list(track(range(3), 3, "counting")) == [0, 1, 2]


def test_the_innermost_watcher_is_told_and_none_is_left_behind_by_a_failure() -> None:
    outer: Told = []
    inner: Told = []
    with watching(lambda *progress: outer.append(progress)):
        with pytest.raises(ValueError, match="stop"), watching(lambda *progress: inner.append(progress)):
            list(track("a", 1, "in"))
            raise ValueError("stop")
        list(track("a", 1, "out"))
    list(track("a", 1, "after"))
    assert {what for what, _, _ in inner} == {"in"}
    assert {what for what, _, _ in outer} == {"out"}


def test_another_thread_has_watchers_of_its_own() -> None:
    told: Told = []
    with watching(lambda *progress: told.append(progress)):
        other = threading.Thread(target=lambda: list(track("a", 1, "elsewhere")))
        other.start()
        other.join()
        assert told == []
        contextvars.copy_context().run(lambda: list(track("a", 1, "here")))
    assert told == [("here", 0, 1), ("here", 1, 1)]
