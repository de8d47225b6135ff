"""The benchmark of the plain path: it runs end to end, refuses wrong results, and its figures reach the README."""

import importlib
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import interpose as ip

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def engine() -> Any:
    """The script as a module; its neighbours are found as when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("engine")


@pytest.fixture(scope="module")
def measured(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a quick run writes."""
    out, threads = tmp_path_factory.mktemp("bench") / "engine.json", torch.get_num_threads()
    try:
        assert engine.main(["--quick", "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    return json.loads(out.read_text(encoding="utf-8"))


def test_a_quick_run_measures_every_task_beside_raw_hooks(measured: dict[str, Any]) -> None:
    assert [table["task"] for table in measured["tables"]] == ["patch", "cache"]
    for table in measured["tables"]:
        rows = {row["name"]: row for row in table["rows"]}
        assert list(rows) == ["raw hooks", "interpose, with-block", "interpose, replay"]
        assert rows["raw hooks"]["ratio"] == {"median": 1, "low": 1, "high": 1}
        for row in rows.values():
            assert row["largest_difference"] == 0
            assert 0 < row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
    assert measured["identities"]["rows"].keys() >= {"bare call", "48 raw hooks", "replay, 48 reads"}
    assert measured["versions"]["interpose"] == ip.__version__
    assert (measured["pairs"], measured["threads"], measured["seed"]) == (3, 1, 0)


def test_each_aim_says_whether_it_holds(measured: dict[str, Any]) -> None:
    assert len(measured["aims"]) == 7
    assert all(aim["holds"] == (aim["found"] <= aim["limit"]) for aim in measured["aims"])


@pytest.fixture
def clock(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A CPU clock that only moves when it is told to."""
    now = SimpleNamespace(seconds=0.0)

    def spend(seconds: float) -> None:
        now.seconds += seconds

    monkeypatch.setattr(importlib.import_module("timing").time, "process_time", lambda: now.seconds)
    return spend


def contender(engine: Any, task: Callable[[], Any]) -> Any:
    return engine.Contender({"patch": task})


def test_a_contender_is_compared_with_raw_hooks_of_the_same_round(engine: Any, clock: Callable[[float], None]) -> None:
    def takes(seconds: float) -> Callable[[], list[torch.Tensor]]:
        return lambda: (clock(seconds), [torch.ones(2)])[1]

    made = {"raw hooks": contender(engine, takes(0.002)), "other": contender(engine, takes(0.003))}
    rounds = engine.Rounds(pairs=5, calls=2, seed=0)
    raw, other = engine._table(engine.SETTINGS["tiny"], "patch", made, {}, rounds)["rows"]
    assert raw["milliseconds"] == pytest.approx(2)
    assert other["milliseconds"] == pytest.approx(3)
    assert list(other["ratio"].values()) == pytest.approx([1.5] * 3)


def test_who_gives_another_result_or_none_is_named_and_not_timed(engine: Any) -> None:
    def fails() -> list[torch.Tensor]:
        raise RuntimeError("no such layer\nmore")

    made = {
        "raw hooks": contender(engine, lambda: [torch.zeros(2)]),
        "wrong": contender(engine, lambda: [torch.tensor([0.0, 0.5])]),
        "misshapen": contender(engine, lambda: [torch.zeros(3)]),
        "broken": contender(engine, fails),
    }
    rounds = engine.Rounds(pairs=2, calls=1, seed=0)
    missing = {"absent": "ModuleNotFoundError: No module named 'absent'"}
    table = engine._table(engine.SETTINGS["tiny"], "patch", made, missing, rounds)
    reasons = {row["name"]: row.get("reason") for row in table["rows"]}
    assert reasons == {
        "raw hooks": None,
        "wrong": "gives another result: differs by 0.5",
        "misshapen": "ValueError: gives shapes [(3,)]",
        "broken": "RuntimeError: no such layer",
        "absent": "ModuleNotFoundError: No module named 'absent'",
    }


def test_the_interval_of_a_median_is_the_bootstrap_one(engine: Any) -> None:
    values = torch.linspace(1, 2, 41).tolist()
    found = engine.estimate(values, seed=0)
    assert found.median == pytest.approx(1.5)
    # The median of n even steps lies within about 0.98 / sqrt(n) of the range's half.
    assert found.median - found.low == pytest.approx(0.5 * 0.98 * 2 / 41**0.5, rel=0.25)
    assert engine.estimate(values, seed=0) == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "huge"], "--models huge: there are tiny, large"),
        (["--pairs", "1"], "--pairs 1: an interval needs at least 2 rounds"),
    ],
)
def test_wrong_options_are_refused(
    arguments: list[str], message: str, engine: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        engine.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_help_shows_examples(engine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        engine.main(["--help"])
    shown = capsys.readouterr().out
    assert len(re.findall(r"^ *python benchmarks/engine\.py", shown, flags=re.MULTILINE)) == 4


@pytest.fixture(scope="module")
def script() -> Any:
    """scripts/readme.py as a module."""
    spec = importlib.util.spec_from_file_location("readme", ROOT / "scripts" / "readme.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_says_what_was_measured(measured: dict[str, Any], script: Any, tmp_path: Path) -> None:
    measured["tables"][0]["rows"].append({"name": "pyvene", "reason": "ImportError: no"})
    result, page = tmp_path / "engine.json", tmp_path / "README.md"
    result.write_text(json.dumps(measured), encoding="utf-8")
    page.write_text("before\n<!-- cost:begin -->\nold\n<!-- cost:end -->\nafter\n", encoding="utf-8")
    assert script.main(["--cost", str(result), str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- cost:begin -->\n|") and text.endswith("\n<!-- cost:end -->\nafter\n")
    assert "old" not in text
    for table in measured["tables"]:
        ratio = next(row["ratio"] for row in table["rows"] if row["name"] == "interpose, replay")
        assert f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]" in text
    for said in (measured["machine"], measured["created"][:10], "Not timed: pyvene (ImportError: no).", "aims"):
        assert said in text
    assert script.main(["--cost", str(result), str(page)]) == 0
    assert page.read_text(encoding="utf-8") == text


def test_the_script_says_where_nothing_was_measured(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--cost", str(tmp_path / "absent.json"), "README.md"]) == 1
    assert "There are no measurements at" in capsys.readouterr().err
