"""Scores that were found elsewhere enter the benchmark from a file; scores that it found leave it for MIB's code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from interpose.benchmark.cell import Cell, Identity
from interpose.benchmark.given import Given, export_mib
from interpose.benchmark.record import Record
from interpose.cli.main import main
from interpose.errors import SearchError
from interpose.models.stream import StreamGraph
from interpose.search import Scores
from interpose.search.mib import read_mib, write_mib

MODEL = "induction-by-hand"
"""Two layers, four heads, and a circuit that is known."""
GRAPH, WIDTH = StreamGraph(2, 4), 160
AREAS = [f"{ranking}_{area}" for ranking in ("circuit", "uniform") for area in ("cpr", "cmd", "cpr_log_low")]


def bench(out: Path, *words: str, model: str = MODEL) -> int:
    fixed = ["--models", model, "--tasks", "own", "--examples", "8", "--proof", "4", "--out", str(out)]
    return main(["bench", "circuit", *fixed, *words])


def board(out: Path) -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in json.loads((out / "leaderboard.json").read_text())["cells"]}


def store(path: Path, values: torch.Tensor, graph: StreamGraph = GRAPH, width: int = WIDTH) -> Path:
    return write_mib(path, Scores(values, graph.edges), width)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a search by EAP gave, also as MIB's JSON."""
    out = tmp_path_factory.mktemp("found") / "out"
    assert bench(out, "--methods", "eap", "--mib") == 0
    return out


@pytest.fixture(scope="module")
def written(found: Path) -> Path:
    """That JSON."""
    (path,) = (found / "mib").iterdir()
    return path


@pytest.fixture(scope="module")
def matrix(found: Path, written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scores from four files, one of them the other way round, beside the method that found them."""
    folder, out = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("given") / "out"
    same = folder / "same.json"
    same.write_bytes(written.read_bytes())
    scores = read_mib(written).scores
    files = [same, store(folder / "reversed.json", -scores.values), store(folder / "tables.pt", scores.values)]
    (ours,) = (found / "cells").glob("*.safetensors")
    (folder / "ours.safetensors").write_bytes(ours.read_bytes())
    files.append(folder / "ours.safetensors")
    assert bench(out, "--methods", "eap", "--scores", *map(str, files)) == 0
    return out


def record(out: Path, row: dict[str, Any]) -> Record:
    return Record.load((out / row["page"]).with_suffix(".json"))


def test_what_is_written_for_mib_is_what_was_found(found: Path, written: Path) -> None:
    (cell,) = (found / "cells").glob("*.safetensors")
    assert written.stem == cell.stem
    scores, theirs = Scores.load(cell), json.loads(written.read_text())
    assert {name: edge["score"] for name, edge in theirs["edges"].items()} == {
        name: float(value) for name, value in zip(scores.units, scores.values, strict=True)
    }
    assert theirs["cfg"] == {"n_layers": 2, "n_heads": 4, "parallel_attn_mlp": False, "d_model": WIDTH}


def test_scores_from_a_file_get_the_curve_of_the_method_that_found_them(matrix: Path) -> None:
    rows = board(matrix)
    assert list(rows) == ["eap", "same.json", "reversed.json", "tables.pt", "ours.safetensors"]
    for row in rows.values():
        assert row["status"] == "done"
        assert [row[name] for name in AREAS] == pytest.approx([rows["eap"][name] for name in AREAS], abs=1e-5)
        assert row["auroc"] == rows["eap"]["auroc"] == 1.0
        assert (row["search_seconds"] is None) == (row["forward_passes"] is None) == (row["method"] != "eap")
    assert len({row["key"] for row in rows.values()}) == 5


def test_it_is_recorded_where_they_came_from_and_which_way_round_they_were(matrix: Path) -> None:
    rows = board(matrix)
    assert rows["eap"]["scores_file"] is None and record(matrix, rows["eap"]).given is None
    for name, positive in (("same.json", "helps"), ("reversed.json", "hurts"), ("tables.pt", "helps")):
        given = record(matrix, rows[name]).given
        assert given is not None and given.highest is not None and given.lowest is not None
        assert (given.format, given.sign, given.positive_in_file) == ("MIB circuit track", "check", positive)
        assert (given.highest > given.lowest) == (positive == "helps")
        assert given.checked_on == 8
        assert (rows[name]["scores_sha256"], rows[name]["scores_positive"]) == (given.sha256, positive)
    ours = record(matrix, rows["ours.safetensors"]).given
    assert ours is not None
    assert (ours.sign, ours.highest, ours.found_by) == ("helps", None, f"EAP, induction, {MODEL}")
    page = (matrix / "index.html").read_text()
    assert "from a file; positive hurts (checked: " in page
    assert "from a file; positive helps</span>" in page
    report = (matrix / rows["reversed.json"]["page"]).read_text()
    assert "Scores read from reversed.json, proved on 4 pairs of prompts." in report
    assert "positive_in_file = hurts" in report
    assert "--scores " in report and "--sign check" in report


def test_a_file_enters_by_its_bytes_wherever_it_lies(tmp_path: Path) -> None:
    model = Identity("abc", "torch.float32")
    keys = set[str]()
    for number, content in enumerate(("{}", "{}", "{} ")):
        path = tmp_path / str(number) / "a.json"
        path.parent.mkdir()
        path.write_text(content)
        keys.add(Cell(MODEL, "induction", "a.json", scores=str(path), sign="check").key(model))
    assert len(keys) == 2
    assert Cell(MODEL, "induction", "a.json", scores=str(path), sign="hurts").key(model) not in keys


def test_what_is_there_is_not_run_again(matrix: Path, written: Path, seen: Any, tmp_path: Path) -> None:
    (tmp_path / "same.json").write_bytes(written.read_bytes())
    assert bench(matrix, "--scores", str(tmp_path / "same.json")) == 0
    assert list(board(matrix)) == ["same.json"]
    assert seen.circuits == []


def test_scores_of_another_model_do_not_apply(found: Path, written: Path, tmp_path: Path) -> None:
    (tmp_path / "wide.json").write_text(written.read_text().replace(f'"d_model": {WIDTH}', '"d_model": 161'))
    larger = StreamGraph(3, 4, parallel=True)
    store(tmp_path / "other.json", torch.arange(float(larger.n_edges)), larger)
    heads = Scores(torch.arange(2.0), ("a0.h0", "a0.h1")).save(tmp_path / "heads.safetensors")
    files = [str(tmp_path / "wide.json"), str(tmp_path / "other.json"), str(heads)]
    assert bench(tmp_path / "out", "--scores", *files) == 0
    rows = board(tmp_path / "out")
    assert {row["status"] for row in rows.values()} == {"does not apply"}
    assert [row["why"] for row in rows.values()] == [
        f"wide.json is of a stream of width 161, and that of {MODEL} is {WIDTH}.",
        f"other.json scores {larger.n_edges:,} edges (layers: 3, heads: 4) whose attention and MLP run in parallel, "
        f"but {MODEL} has {GRAPH.n_edges:,} edges (layers: 2, heads: 4).",
        f"heads.safetensors scores 2 units (a0.h0, a0.h1), but {MODEL} has {GRAPH.n_edges:,} edges "
        "(layers: 2, heads: 4).",
    ]
    assert all(row["page"] is None and row["scores_file"] for row in rows.values())


def test_scores_of_nodes_bring_their_edges(tmp_path: Path) -> None:
    values = torch.arange(float(GRAPH.n_sources))
    path = Scores(values, GRAPH.sources).save(tmp_path / "nodes.safetensors")
    assert bench(tmp_path / "out", "--scores", str(path), "--mib") == 0
    (row,) = board(tmp_path / "out").values()
    assert (row["status"], row["units"]) == ("done", "nodes")
    (file,) = (tmp_path / "out" / "mib").iterdir()
    scores = read_mib(file).scores
    assert {scores[edge] for edge in scores.units} == set(values.tolist())
    assert scores["m1->logits"] == values[-1]
    assert scores["input->a1.h3<v>"] == values[0]


def test_where_the_sign_cannot_be_told_it_says_so_and_takes_it_from_the_option(tmp_path: Path) -> None:
    # Only an edge that is of no use has a score of its own: both ends of the ranking leave the circuit out.
    values = torch.zeros(GRAPH.n_edges)
    values[GRAPH.edges.number("a0.h3->a1.h3<q>")] = 1.0
    path = store(tmp_path / "flat.json", values)
    assert bench(tmp_path / "out", "--scores", str(path)) == 0
    (row,) = board(tmp_path / "out").values()
    assert row["status"] == "failed"
    assert "so the sign cannot be told. Use more pairs, or say which it is." in row["why"]
    assert bench(tmp_path / "out", "--scores", str(path), "--sign", "hurts") == 0
    (row,) = board(tmp_path / "out").values()
    assert (row["status"], row["scores_sign"], row["scores_positive"]) == ("done", "hurts", "hurts")
    (cell,) = (tmp_path / "out" / "cells").glob("*.safetensors")
    assert Scores.load(cell)["a0.h3->a1.h3<q>"] == -1.0


def edited(path: Path, written: Path, score: float) -> Path:
    content = json.loads(written.read_text())
    for edge in content["edges"].values():
        edge["score"] = score
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.json", "There is no file "),
        ("scores.csv", "ends neither in .json nor in .pt"),
        ("flat.json", f"gives the same score to all of its {GRAPH.n_edges} edges, so there is nothing to rank."),
        ("infinite.json", "the score of input->a0.h0<q> is inf. Expected finite numbers."),
        ("damaged.safetensors", "damaged.safetensors"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_before_anything_runs(
    name: str, message: str, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scores.csv").touch()
    (tmp_path / "damaged.safetensors").write_bytes(b"no")
    edited(tmp_path / "flat.json", written, 0.5)
    edited(tmp_path / "infinite.json", written, float("inf"))
    assert bench(tmp_path / "out", "--scores", str(tmp_path / name)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_words_that_contradict_one_another_are_refused(
    found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(tmp_path / "out", "--methods", "eap", "--sign", "helps") == 2
    assert (
        "--sign says what a positive score of a file means; write --scores FILE beside it." in capsys.readouterr().err
    )
    twice = [store(tmp_path / name / "a.json", torch.arange(float(GRAPH.n_edges))) for name in made(tmp_path, "b", "c")]
    assert bench(tmp_path / "out", "--scores", *map(str, twice)) == 2
    assert f"{twice[0]} and {twice[1]} would be one row, a.json. Rename one of them." in capsys.readouterr().err
    (ours,) = (found / "cells").glob("*.safetensors")
    with pytest.raises(SearchError, match=r"is a file of interpose, where positive always helps. Leave --sign out"):
        Given(ours, "hurts").read()


def made(parent: Path, *names: str) -> list[str]:
    for name in names:
        (parent / name).mkdir()
    return list(names)


def test_scores_that_do_not_say_of_what_stream_they_are_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"a.json cannot be written: these scores were made before interpose noted"):
        export_mib(tmp_path / "a.json", Scores(torch.zeros(GRAPH.n_edges), GRAPH.edges))


def test_locate_writes_mibs_json_where_it_is_asked_to(run: Callable[..., int], tmp_path: Path) -> None:
    assert run("--mib", "--method", "eap") == 0
    scores = Scores.load(tmp_path / "out" / "scores.safetensors")
    assert torch.equal(read_mib(tmp_path / "out" / "scores.mib.json").scores.values, scores.values)
