from datetime import UTC, datetime

import pytest

from interpose.benchmark.record import Failure, Record
from interpose.cli._progress import bars, board
from interpose.search.progress import track


def test_without_a_terminal_each_stage_leaves_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as tell:
        list(track(range(3), 3, "attributing edges"))
        for done in range(6):
            tell("running circuits", done, 5)
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == "attributing edges: 3 done\nrunning circuits: 5 done\n"


def test_on_a_terminal_a_bar_shows_what_is_done_how_far_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    with bars() as tell:
        tell("running circuits", 2, 5)
        tell("running circuits", 5, 5)
    shown = capsys.readouterr().err
    assert "running circuits" in shown
    assert "5/5" in shown
    assert "left" in shown
    assert "done\n" not in shown


def test_when_the_work_fails_nobody_is_told_any_more(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="stop"), bars():
        raise ValueError("stop")
    list(track(range(2), 2, "after"))
    assert capsys.readouterr().err == ""


def record(status: str) -> Record:
    failure = Failure(kind="ValueError", message="no", trace="")
    base = {"key": "k", "cell": {"method": "eap", "task": "ioi", "model": "./a/model"}, "weights_hash": "", "dtype": ""}
    return Record(status=status, created=datetime.now(UTC), machine="", versions={}, failure=failure, **base)  # type: ignore[arg-type]


def test_the_cells_of_a_matrix_leave_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with board() as watching:
        watching.cells(1, 3, None)
        watching.begun("eap on ioi, model")
        watching.stage("searching", 1, 2)
        watching.cells(2, 3, record("failed"))
    assert capsys.readouterr().err == "1 of 3 cells are there\n2 of 3 cells: eap on ioi, model, failed\n"


def test_on_a_terminal_the_cells_have_one_bar_and_the_cell_that_runs_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    with board() as watching:
        watching.cells(1, 3, None)
        watching.begun("eap on ioi, model")
        watching.stage("searching", 7, 9)
    shown = capsys.readouterr().err
    assert "1/3" in shown
    assert "eap on ioi, model: searching" in shown
    assert "7/9" in shown
    assert "left" in shown
