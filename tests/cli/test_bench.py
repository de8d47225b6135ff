"""The benchmark from the command line: cells that are whole or absent, a leaderboard, and what becomes of failures."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interpose.benchmark.record import Record
from interpose.cli.main import main
from interpose.report import Result
from interpose.search import Scores

SMALL = ["--examples", "4", "--proof", "4"]
SLOW = '''"""Random scores that take their time."""

import os
import time
from dataclasses import dataclass

import torch

from interpose.methods.base import Method
from interpose.search.progress import track


@dataclass(frozen=True)
class Slow(Method):
    """Wait, then give the same score to all."""

    steps: int = 400

    def search(self, model, pairs, mediators):
        """One score a unit."""
        for _ in track(range(self.steps), self.steps, "waiting"):
            time.sleep(float(os.environ.get("SLOW", "0")))
        return torch.zeros(len(mediators.units(model, pairs)))
'''
FAILS = '''"""Fails."""

from dataclasses import dataclass

from interpose.methods.base import Method


@dataclass(frozen=True)
class Fails(Method):
    """Fail, or refuse."""

    refuses: bool = False

    def search(self, model, pairs, mediators):
        """Never returns."""
        if self.refuses:
            raise self.refuse(mediators, "It scores nothing; use Random().")
        raise ValueError("as it must")
'''


def bench(out: Path, *words: str) -> int:
    return main(["bench", "circuit", "--tasks", "ioi", "--out", str(out), *SMALL, *words])


def board(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "leaderboard.json").read_text())["cells"]


@pytest.fixture(scope="session")
def matrix(folder: Path, smallest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, one task, two methods."""
    out = tmp_path_factory.mktemp("bench") / "out"
    methods = ["--methods", "eap-ig", "random:seed=3"]
    assert bench(out, "--models", str(folder), str(smallest), *methods) == 0
    return out


def test_each_cell_has_a_record_scores_and_a_page_and_nothing_else_is_left(matrix: Path) -> None:
    assert {path.name for path in matrix.iterdir()} == {"cells", "index.html", "leaderboard.csv", "leaderboard.json"}
    rows = board(matrix)
    assert [(Path(row["model"]).name, row["method"]) for row in rows] == [
        (model, method) for model in ("a small model", "smallest") for method in ("eap-ig", "random:seed=3")
    ]
    assert {row["status"] for row in rows} == {"done"}
    stems = {Path(row["page"]).stem for row in rows}
    assert len(stems) == 4
    kinds = (".json", ".safetensors", ".html")
    assert {path.name for path in (matrix / "cells").iterdir()} == {stem + kind for stem in stems for kind in kinds}


def test_a_cell_is_what_locate_finds(matrix: Path, out: Path, folder: Path) -> None:
    """`out` is what `interpose locate` wrote for the same model, task, method and numbers."""
    (row,) = [row for row in board(matrix) if row["model"] == str(folder) and row["method"] == "eap-ig"]
    located = Result.load(out / "result.json")
    record = Record.load((matrix / row["page"]).with_suffix(".json"))
    assert record.result is not None and record.cost is not None
    own = {"created", "timings", "peak_memory_bytes", "command"}
    assert record.result.model_dump(exclude=own) == located.model_dump(exclude=own)
    assert row["circuit_cpr"] == located.areas["circuit"].cpr.mean
    assert row["shuffled_cmd_log_high"] == located.areas["shuffled"].cmd_log.high
    scores = Scores.load((matrix / row["page"]).with_suffix(".safetensors"))
    assert scores.values.equal(Scores.load(out / "scores.safetensors").values)
    # One corrupt pass, and at each of five steps one forward and one backward pass, of all four pairs at once.
    assert (row["forward_passes"], row["backward_passes"]) == (record.cost.forward, 5)
    assert 6 <= row["forward_passes"] <= 7
    assert row["weighted_edges"] == [size.edges_after_pruning for size in located.curve]
    assert row["above_controls"] == located.verdict.holds
    assert row["auroc"] is None


def test_cells_of_one_question_run_no_circuit_twice(
    folder: Path, tmp_path: Path, seen: Any, matrix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(tmp_path, "--models", str(folder), "--methods", "random:seed=3", "eap-ig") == 0
    assert len(seen.circuits) == len(set(seen.circuits)) > 20
    # The other way round than in `matrix`, where more of the circuits of eap-ig were run first.
    expected = {row["key"]: row for row in board(matrix)}
    for row in board(tmp_path):
        for name in ("circuit_cpr", "uniform_cpr_low", "shuffled_cmd_log_high"):
            assert row[name] == pytest.approx(expected[row["key"]][name], abs=1e-5)


def test_the_csv_has_the_same_rows(matrix: Path) -> None:
    with (matrix / "leaderboard.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    for text, row in zip(found, board(matrix), strict=True):
        assert list(text) == list(row)
        assert float(text["circuit_cmd"]) == row["circuit_cmd"]
        assert text["auroc"] == ""
        assert len(text["weighted_edges"].split()) == 10


def test_what_is_there_is_not_run_again_and_what_is_damaged_is(
    matrix: Path, folder: Path, seen: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--models", str(folder), "--methods", "eap-ig", "random:seed=3", "--json"]
    assert bench(matrix, *words) == 0
    before = json.loads(capsys.readouterr().out)["cells"]
    assert (seen.scored, seen.circuits) == (0, [])
    scores = (matrix / before[0]["page"]).with_suffix(".safetensors")
    scores.write_bytes(scores.read_bytes()[:-3])
    assert bench(matrix, *words) == 0
    after = json.loads(capsys.readouterr().out)["cells"]
    assert seen.scored == 1
    cost = {"seconds", "search_seconds", "search_memory"}
    assert [{**row, **dict.fromkeys(cost)} for row in after] == [{**row, **dict.fromkeys(cost)} for row in before]
    assert after[1] == before[1]


def test_a_run_that_is_killed_leaves_whole_cells_and_goes_on(smallest: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(SLOW)
    out = tmp_path / "out"
    words = ["bench", "circuit", "--tasks", "ioi", "--out", str(out), *SMALL, "--models", str(smallest)]
    words += ["--methods", "random", "slow", "--method", str(slow)]
    program = "import sys; from interpose.cli.main import main; sys.exit(main(sys.argv[1:]))"
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], env={**os.environ, "SLOW": "60"}, stderr=subprocess.PIPE, text=True
    ) as run:
        deadline = time.monotonic() + 120
        while not (list(out.glob("cells/*random*.json")) and list(out.glob("cells/.unfinished-*"))):
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        run.send_signal(signal.SIGKILL)
    (whole,) = out.glob("cells/*.json")
    written = whole.stat().st_mtime_ns
    assert Record.load(whole).status == "done"
    assert not (out / "index.html").exists()
    assert main(words) == 0
    assert [row["status"] for row in board(out)] == ["done", "done"]
    assert whole.stat().st_mtime_ns == written
    assert not list(out.glob("cells/.*"))


def test_a_cell_that_fails_says_so_and_stops_no_other(
    smallest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fails.py").write_text(FAILS)
    out = tmp_path / "out"
    words = [
        "--methods",
        "fails",
        "fails:refuses=True",
        "random:sede=1",
        "random",
        "--method",
        str(tmp_path / "fails.py"),
    ]
    assert bench(out, "--models", "./nothing", str(smallest), *words) == 0
    rows = {(Path(row["model"]).name, row["method"]): row for row in board(out)}
    own = {method: row for (model, method), row in rows.items() if model == smallest.name}
    assert [row["status"] for row in own.values()] == ["failed", "does not apply", "failed", "done"]
    assert own["fails"]["why"] == "as it must"
    assert (
        own["fails:refuses=True"]["why"] == "Fails cannot score Edges(grouped=False). It scores nothing; use Random()."
    )
    assert "Random does not take these settings" in own["random:sede=1"]["why"]
    assert all("There is no folder nothing" in row["why"] for (model, _), row in rows.items() if model == "nothing")
    said = capsys.readouterr().out
    assert "8 cells: 6 failed, 1 does not apply, 1 done." in said
    assert f"  failed: fails on ioi, {smallest.name}: as it must" in said
    (record,) = [Record.load(path) for path in out.glob(f"cells/*{own['fails']['key']}.json")]
    assert record.failure is not None and "in search" in record.failure.trace


def test_a_model_that_cannot_do_the_task_is_at_chance(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved(tmp_path / "unable", layers=2, heads=2, able=False)
    assert bench(tmp_path / "out", "--models", str(folder), "--methods", "random") == 0
    (row,) = board(tmp_path / "out")
    assert row["status"] == "at chance"
    assert 0 <= row["accuracy"] < 1
    assert row["circuit_cpr"] is None
    assert "the model is at chance: it prefers the answer in" in (tmp_path / "out" / "index.html").read_text()


def test_a_cell_that_would_take_too_long_stays_blank_until_it_has_the_time(
    smallest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    words = ["--models", str(smallest), "--method", str(tmp_path / "slow.py"), "--methods", "slow"]
    monkeypatch.setenv("SLOW", "0.05")
    assert bench(tmp_path / "out", *words, "--hours", "0.003") == 0
    (row,) = board(tmp_path / "out")
    assert row["status"] == "too long"
    assert 20 / 3600 <= row["estimated_hours"] < 200 / 3600
    assert row["accuracy"] == 1
    monkeypatch.setenv("SLOW", "0")
    assert bench(tmp_path / "out", *words, "--hours", "0.003") == 0
    assert board(tmp_path / "out") == [row]
    assert bench(tmp_path / "out", *words, "--hours", "1") == 0
    assert board(tmp_path / "out")[0]["status"] == "done"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "eapp"], "there is no method called 'eapp'. Did you mean 'eap'?"),
        (["--methods", "eap-ig:steps"], "'eap-ig:steps' has a setting 'steps'. Write it as in eap-ig:steps=10,"),
        (["--tasks", "nope"], "there is no task called 'nope'."),
        (["--tasks", "own"], "./nothing was not made for a task of its own, so name one. Models that were: "),
        (["--hours", "0"], "--hours is 0; write a number above 0, or leave it out for no limit."),
        (["--address", "auto"], "--address is the address of a Ray cluster; write --engine ray beside it."),
        (["--counterfactual", "nope"], "ioi has no counterfactual 'nope'."),
        (["--examples", "1"], "--examples is 1; write a number from 2 to 10,000."),
        (["--proof", "3"], "with all of them right the 95 % interval still holds 50 %. Write 4 or more."),
        (["--preset", "medium"], "invalid choice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_exits_with_2(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(tmp_path / "out", "--models", "./nothing", *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_without_tasks_it_says_which_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "circuit", "--out", str(tmp_path / "out")]) == 2
    assert "Say which tasks: --tasks, followed by some of " in capsys.readouterr().err
