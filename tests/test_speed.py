"""The benchmark of whole experiments: it runs, refuses who is wrong, counts and extrapolates rightly, and is shown."""

import importlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import interpose as ip

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def bench() -> Iterator[Callable[[str], Any]]:
    """Modules of benchmarks/ by name; each finds its neighbours as when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        patch.setenv("TQDM_DISABLE", "1")
        yield importlib.import_module


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """As many threads afterwards as before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def script(name: str) -> Any:
    """A file of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(bench: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a quick run writes."""
    out = tmp_path_factory.mktemp("speed") / "speed.json"
    arguments = ["--quick", "--threads", "1", "--only", "stream,long,heads", "--out", str(out)]
    assert bench("speed").main(arguments) == 0
    return json.loads(out.read_text(encoding="utf-8"))


def test_a_quick_run_times_every_kind_of_work_beside_what_gives_the_same(measured: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in measured["rows"]}
    assert list(rows) == ["stream", "stream, batched", "long", "heads"]
    fastest = ["raw hooks", "raw hooks, batched by hand", "raw hooks", "raw hooks"]
    assert [row["fastest"] for row in rows.values()] == fastest
    for row in rows.values():
        (other,) = row["others"]
        assert other["largest_difference"] <= 1e-3 < 0.02 < row["largest_value"]
        assert 0 < row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
        assert row["holds"] == (row["ratio"]["median"] >= row["aim"])
        assert len(row["profile"]) == 8
        assert 0 < row["limit"]["share"] < 1
    assert rows["stream"]["size"] == {"units": 24, "pairs": 1, "tokens": 8}
    # Three of eight positions come after the first difference.
    assert rows["stream"]["useful"]["patches"] == 9
    assert rows["stream"]["others"][0]["patches_timed"] == 28
    assert measured["versions"]["interpose"] == ip.__version__


@pytest.fixture
def sweep(bench: Callable[[str], Any]) -> Any:
    """A stream sweep of the tiny model: three layers, six positions."""
    materials, sweeps = bench("materials"), bench("sweeps")
    pairs = materials.random_pairs(1, 6, 1, 61, seed=0)
    return sweeps.Sweep("s", materials.tiny(0), pairs, ip.mediators.Positions(of=ip.mediators.Streams()))


@torch.no_grad()
def test_who_gives_another_result_is_named_and_not_timed(bench: Callable[[str], Any], sweep: Any) -> None:
    alternate, sweeps = bench("alternate"), bench("sweeps")
    right = sweeps.raw_hooks(sweep)

    def patcher(change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        return lambda _: sweeps.Patcher(right.source, lambda values, units: change(right.patch(values, units)))

    def fails(_: Any) -> Any:
        raise RuntimeError("no such layer\nmore")

    builders = {
        "raw hooks": sweeps.raw_hooks,
        "close": patcher(lambda found: found + 5e-4),
        "wrong": patcher(lambda found: found + 2e-3),
        "no number": patcher(lambda found: found * torch.nan),
        "misshapen": patcher(lambda found: found[1:]),
        "broken": fails,
    }
    made = alternate.measure_sweep(sweep, builders, alternate.Effort(rounds=2, units=4), sweep.ours)
    assert set(made.seconds) == {"interpose", "raw hooks", "close"}
    assert made.reasons == {
        "wrong": "gives another result: differs by 0.002",
        "no number": "gives another result: differs by inf",
        "misshapen": "gives shape (3,)",
        "broken": "RuntimeError: no such layer",
    }


@torch.no_grad()
def test_where_interpose_differs_from_raw_hooks_the_row_has_no_figures(bench: Callable[[str], Any], sweep: Any) -> None:
    alternate, sweeps, rows = bench("alternate"), bench("sweeps"), bench("speed_rows")
    effort = alternate.Effort(rounds=2, units=4)
    made = alternate.measure_sweep(sweep, sweeps.HOOKS, effort, lambda: sweep.ours() + 0.5)
    row = rows.compared("stream", made, ["raw hooks"], "cpu", seed=0)
    assert row["wrong"] == "differs from raw hooks: gives another result: differs by 0.5"
    assert "ratio" not in row
    doubled = {"interpose": lambda: torch.ones(3), "one by one": lambda: torch.ones(3) * 2}
    made = rows.measure_whole("curve", doubled, effort, cuda=False)
    assert rows.compared("curve", made, ["one by one"], "cpu", seed=0)["wrong"].endswith("differs by 1")


@torch.no_grad()
def test_a_curve_is_the_same_one_by_one_and_together(bench: Callable[[str], Any], sweep: Any) -> None:
    curves, edges = bench("one_by_one"), ip.mediators.Edges()
    count = edges.graph(sweep.model).n_edges
    masks = torch.rand(2, count, generator=torch.Generator().manual_seed(0)) < torch.tensor([[0.5], [0.9]])
    found = curves.one_by_one(sweep.model, sweep.pairs, edges, masks)
    assert found == pytest.approx(curves.together(sweep.model, sweep.pairs, edges, masks), abs=1e-5)
    assert (found[0] - found[1]).abs() > 0.01


def test_the_whole_time_follows_from_a_sample(
    bench: Callable[[str], Any], sweep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alternate, sweeps, rows = bench("alternate"), bench("sweeps"), bench("speed_rows")
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(alternate.time, "perf_counter", lambda: now.seconds)

    def spend(seconds: float, found: Any) -> Any:
        now.seconds += seconds
        return found

    clean, ours = sweep.clean(), torch.zeros(len(sweep.units))

    def patcher(a_patch: float) -> Any:
        def patch(values: Any, units: Any) -> Any:
            return spend(a_patch * len(units), torch.full((len(units),), clean))

        return lambda _: sweeps.Patcher(lambda: spend(1.0, None), patch)

    builders = {"raw hooks": patcher(0.5), "other": patcher(0.25)}
    effort = alternate.Effort(rounds=3, units=4)
    made = alternate.measure_sweep(sweep, builders, effort, lambda: spend(2.0, ours))
    row = rows.compared("stream", made, ["raw hooks", "other"], "cpu", seed=0)
    # 18 units: one second for the corrupt run, then 18 patches.
    assert [other["seconds"]["median"] for other in row["others"]] == pytest.approx([10.0, 5.5])
    assert (row["fastest"], row["ratio"]["median"], row["holds"]) == ("other", pytest.approx(2.75), False)
    assert row["others"][0]["patches_timed"] == 12


@torch.no_grad()
def test_the_useful_work_is_what_torch_counts(bench: Callable[[str], Any], sweep: Any) -> None:
    limits = bench("limits")
    costs = limits.Costs.of(sweep)
    with FlopCounterMode(display=False) as counter:
        # All positions: fewer are multiplied as a batch of matrices, which also counts other things.
        sweep.model.network(**{**sweep.given("clean"), "logits_to_keep": 0})
    counted = {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}
    matrices = sum(count for name, count in counted.items() if "mm" in name and "bmm" not in name)
    assert costs.layers * 6 * costs.linear + 6 * costs.unembed == matrices
    # Positions 1 to 5 change something, after layers 0 and 1 in the layers above, and after layer 2 only the last does.
    reached = sum(costs.full(2, first, 6) + costs.full(1, first, 6) + 2 * costs.unembed for first in range(1, 6))
    assert limits.useful(sweep) == {"patches": 15, "all": 18, "flops": reached + costs.unembed}
    assert costs.full(1, 4, 6) == 2 * costs.linear + (5 + 6) * costs.context


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "streams"], "--only streams: there are stream, early, long, heads, curve"),
        (["--rounds", "1"], "--rounds 1: an interval needs at least 2 rounds"),
    ],
)
def test_wrong_options_are_refused(
    arguments: list[str], message: str, bench: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench("speed").main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_readme_says_what_was_measured(measured: dict[str, Any], tmp_path: Path) -> None:
    result, page = tmp_path / "speed.json", tmp_path / "README.md"
    stream = measured["rows"][0]
    stream |= {
        "holds": False,
        "aim": 12,
        "others": [*stream["others"], {"name": "pyvene", "reason": "ImportError: no"}],
    }
    absent = {"name": "attribution", "work": "w", "against": "a", "aim": 2, "absent": "not run"}
    result.write_text(json.dumps(measured | {"rows": [*measured["rows"], absent]}), encoding="utf-8")
    page.write_text("before\n<!-- speed:begin -->\nold\n<!-- speed:end -->\nafter\n", encoding="utf-8")
    assert script("readme").main(["--speed", str(result), str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    lines = [re.split(r" ?\| ?", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    ratio = stream["ratio"]
    assert lines[2][4:6] == [f"{ratio['median']:.1f} [{ratio['low']:.1f}, {ratio['high']:.1f}]", "12 (missed)"]
    assert lines[-1] == ["w", "a", "", "", "not run", "2", ""]
    assert {len(line) for line in lines} == {7}
    assert "Missed on cpu: stream, " in text and f"`{stream['profile'][0]['name']}`" in text
    assert "Not timed: pyvene, stream (ImportError: no)." in text
    result.with_name("speed-cuda.json").write_text(json.dumps(measured | {"device": "cuda"}), encoding="utf-8")
    assert script("readme").main(["--speed", str(result), str(page)]) == 0
    assert "| on a GPU | aim |" in page.read_text(encoding="utf-8")


def test_edge_attribution_is_taken_from_its_own_benchmark(bench: Callable[[str], Any], tmp_path: Path) -> None:
    rows = bench("speed_rows")
    assert rows.attribution(tmp_path, "cpu")["absent"] == "no attribution.json: benchmarks/attribution.py makes it"

    def row(name: str, seconds: float, memory: float) -> dict[str, Any]:
        ratio = {"median": seconds / 2, "low": seconds / 3, "high": seconds}
        return {"name": name, "seconds": seconds, "ratio": ratio, "peak_memory_mb": memory}

    ours, stock = row("interpose, EAP", 2.0, 90.0), row("stock forward and backward", 1.0, 80.0)
    others = [row("TransformerLens, one", 9.0, 500.0), row("TransformerLens, two", 6.0, 100.0)]
    found = {"threads": 1, "rows": [ours, stock, *others]}
    (tmp_path / "attribution.json").write_text(json.dumps(found), encoding="utf-8")
    made = rows.attribution(tmp_path, "cpu")
    assert (made["fastest"], made["ratio"]["median"], made["holds"]) == ("TransformerLens, two", 3.0, False)
    assert "peak memory 0.90 of the fastest other's, at most 0.5" in made["note"]


def test_growth_is_measured_and_drawn(bench: Callable[[str], Any], tmp_path: Path) -> None:
    out = tmp_path / "growth.json"
    assert bench("growth").main(["--quick", "--threads", "1", "--rounds", "2", "--out", str(out)]) == 0
    plots = json.loads(out.read_text(encoding="utf-8"))["plots"]
    assert {name: [point["size"] for point in plot] for name, plot in plots.items()} == {
        "layers": [1, 3],
        "length": [8, 16],
    }
    assert all(point["largest_difference"] < 1e-3 for plot in plots.values() for point in plot)
    pictures = script("pictures")
    drawn = [pictures.growth({"plots": plots}, tmp_path / name).read_bytes() for name in ("one.svg", "two.svg")]
    assert drawn[0] == drawn[1] and b"<svg" in drawn[0]
