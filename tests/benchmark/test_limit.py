"""A limit stops work by its own forecast, and no sooner than the forecast can be believed."""

from collections.abc import Callable

import pytest

from interpose.benchmark import limit as module
from interpose.benchmark.limit import Limit, TooLong
from interpose.search.progress import track, watching


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the limit's clock on by some seconds."""
    now = [0.0]

    def move(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return move


def told(*_: object) -> None: ...


def test_what_fits_is_left_alone_and_handed_on(clock: Callable[[float], None]) -> None:
    seen: list[tuple[str, int, int]] = []
    limit = Limit(1.0, lambda *said: seen.append(said))
    for done in range(11):
        limit("searching", done, 10)
        clock(300)
    assert seen == [("searching", done, 10) for done in range(11)]


def test_a_stage_that_would_go_over_it_is_stopped_with_the_hours_it_would_take(clock: Callable[[float], None]) -> None:
    limit = Limit(1.0, told)
    clock(100)
    limit("searching", 0, 1000)
    clock(36)
    with pytest.raises(TooLong, match="would take 5 hours") as stopped:
        limit("searching", 2, 1000)
    assert stopped.value.hours == pytest.approx((100 + 36 * 500) / 3600)


def test_a_forecast_made_too_soon_is_not_believed(clock: Callable[[float], None]) -> None:
    limit = Limit(1.0, told)
    limit("searching", 0, 1000)
    clock(71)
    limit("searching", 1, 1000)
    clock(2)
    with pytest.raises(TooLong):
        limit("searching", 2, 1000)


def test_what_was_there_when_a_stage_began_says_nothing_of_its_speed(clock: Callable[[float], None]) -> None:
    limit = Limit(1.0, told)
    limit("running circuits", 990, 1000)
    clock(300)
    limit("running circuits", 995, 1000)  # ten minutes in all
    clock(3400)
    with pytest.raises(TooLong):
        limit("running circuits", 996, 1000)


def test_steps_inside_a_stage_do_not_hide_how_long_the_stage_takes(clock: Callable[[float], None]) -> None:
    limit = Limit(1.0, told)
    limit("optimising", 0, 100)
    with pytest.raises(TooLong) as stopped:
        for step in range(1, 101):
            for part in range(3):
                limit("attributing", part, 2)
                clock(60)
            limit("optimising", step, 100)
    assert stopped.value.hours == pytest.approx(180 * 100 / 3600)


def test_it_passes_through_a_method_that_catches_what_it_can(clock: Callable[[float], None]) -> None:
    def careless() -> None:
        for _ in track(range(100), 100, "searching"):
            try:
                clock(1000)
            except Exception:
                raise AssertionError from None

    with pytest.raises(TooLong), watching(Limit(1.0, told)):
        careless()
    assert not issubclass(TooLong, Exception)


def test_without_a_limit_nothing_is_too_long(clock: Callable[[float], None]) -> None:
    limit = Limit(None, told)
    limit("searching", 0, 1000)
    clock(1e9)
    limit("searching", 1, 1000)
