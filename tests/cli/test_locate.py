"""The main job, from the command line to its three files, on a small model made by hand that does the task."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.benchmark.grid import SIZES
from interpose.cli.main import main
from interpose.mediators import Edges
from interpose.methods import EAPIG
from interpose.report import Result
from interpose.search import Scores

WRITTEN = {"report.html", "result.json", "scores.safetensors"}
Run = Callable[..., int]


@pytest.fixture(scope="session")
def result(out: Path) -> Result:
    return Result.load(out / "result.json")


def test_a_run_leaves_three_files_and_nothing_else(out: Path) -> None:
    assert {path.name for path in out.iterdir()} == WRITTEN


def test_the_result_says_what_was_asked_of_what(result: Result, folder: Path) -> None:
    assert (result.question.task, result.question.counterfactual) == ("ioi", "s2_io_flip")
    assert result.question.answer in result.question.clean
    assert result.question.clean != result.question.corrupt
    assert (result.model.name, result.model.source) == (str(folder), "folder")
    assert (result.model.layers, result.model.heads, result.model.dtype) == (2, 2, "float32")
    assert result.model.weights_hash == ip.load(folder).weights_hash
    assert result.method.name == "EAPIG"
    assert result.method.settings == {"steps": 5, "batch_size": 16}
    assert (result.examples.search, result.examples.proof) == (4, 4)
    assert (result.examples.search_split, result.examples.proof_split) == ("train", "test")
    assert {"interpose", "torch", "transformers", "python"} <= set(result.versions)


def test_the_result_holds_the_evidence_for_every_size_and_both_controls(result: Result) -> None:
    assert result.edges == 46
    assert [size.fraction for size in result.curve] == list(SIZES)
    assert [size.edges for size in result.curve] == [int(size * 46) for size in SIZES]
    assert result.controls == ("uniform", "shuffled")
    assert all(control.draws == 5 for size in result.curve for control in size.controls.values())
    assert result.curve[-1].signed.mean == pytest.approx(1)
    assert set(result.areas) == {"circuit", "uniform", "shuffled"}
    assert result.areas["circuit"].cpr.mean > result.areas["uniform"].cpr.mean
    assert all(seconds >= 0 for seconds in result.timings.values())
    assert list(result.timings) == [
        "load the model",
        "draw the prompts",
        "check the model",
        "score the edges",
        "prove the circuit",
    ]
    assert result.peak_memory_bytes > 10e6


def test_the_numbers_are_those_of_the_library(result: Result, out: Path, folder: Path) -> None:
    model = ip.load(folder)
    pairs = ip.tasks.IOI().pairs(model, n=4, seed=0, split="train")
    expected = EAPIG().score(model, pairs, Edges())
    scores = Scores.load(out / "scores.safetensors")
    assert torch.equal(scores.values, expected.values)
    assert list(scores.units) == list(expected.units)
    proof = ip.tasks.IOI().pairs(model, n=4, seed=0, split="test")
    rows = torch.arange(4)
    with torch.no_grad():
        logits = model.network(**proof.clean_batch().kwargs).logits[:, -1]
    clean = logits[rows, proof.answers] - logits[rows, proof.wrong]
    assert result.behaviour.clean == pytest.approx(float(clean.mean()), abs=1e-4)
    assert result.accuracy.rate == float((clean > 0).float().mean()) == 1
    best = scores.top(1, absolute=True)[0]
    assert f"{result.top_edges[0].source}->{result.top_edges[0].destination}" == best.unit
    assert result.top_edges[0].score == pytest.approx(best.score)
    leaving = sum(scores[unit] for unit in scores.units if unit.startswith("a0.h1->"))
    assert result.heads[0][1] == pytest.approx(leaving, rel=1e-5)
    drawn = {f"{edge.source}->{edge.destination}" for edge in result.chosen.edges}
    assert drawn == set(scores.circuit(int(0.05 * 46)).edges())


def test_a_claim_that_fails_is_shown_as_failing_and_is_no_failure_of_the_job(result: Result, out: Path) -> None:
    """With 46 edges the circuit at 2 % has none, so that it cannot beat the controls."""
    assert not result.verdict.holds
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "The claim fails" in page
    assert "claim holds" not in page


def test_the_page_needs_nothing_but_itself(out: Path) -> None:
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<svg" in page
    assert not any(word in page for word in ('src="http', 'href="//', "@import", "url(http"))


def test_a_circuit_without_an_edge_is_shown_as_that(smallest: Path, run: Run, tmp_path: Path) -> None:
    assert run("--model", str(smallest)) == 0
    result = Result.load(tmp_path / "out" / "result.json")
    assert (result.edges, result.chosen.edges) == (13, ())
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_in_a_process_of_its_own_a_claim_holds_and_json_is_all_that_is_printed(
    saved: Callable[..., Path], tmp_path: Path
) -> None:
    saved(tmp_path / "a model", layers=4, heads=4)
    words = ["locate", "ioi", "--model", "./a model", "--examples", "4", "--proof", "4", "--json"]
    program = "import sys; from interpose.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    result = Result.model_validate(json.loads(done.stdout))
    assert result.verdict.holds
    out = tmp_path / "out" / "ioi-eap-ig"
    assert {path.name for path in out.iterdir()} == WRITTEN
    assert result == Result.load(out / "result.json")
    assert "running circuits: " in done.stderr
    assert "Report: out/ioi-eap-ig/report.html" in done.stderr


def test_other_settings_are_in_the_result_and_in_the_command_that_gives_it_again(
    run: Run, smallest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(smallest), "--method", "random", "--counterfactual", "random_names", "--seed", "3"]
    assert run(*words) == 0
    result = Result.load(tmp_path / "out" / "result.json")
    assert (result.method.name, result.method.settings) == ("Random", {"seed": 0})
    assert (result.question.counterfactual, result.seed) == ("random_names", 3)
    written = capsys.readouterr()
    assert written.out.splitlines()[-1] == f"Report: {tmp_path / 'out' / 'report.html'}"
    assert "running circuits: " in written.err
    program, *words = shlex.split(result.command)
    assert program == "interpose"
    assert main([*words, "--out", str(tmp_path / "again")]) == 0
    again = Result.load(tmp_path / "again" / "result.json")
    own = {"created", "timings", "peak_memory_bytes"}
    assert again.model_dump(exclude=own) == result.model_dump(exclude=own)


# ------------------------------------------------------------------------------------------------------------ cut off


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(
    run: Run, tmp_path: Path, result: Result, seen: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    seen.stop_after = 11
    assert run() == 130
    assert capsys.readouterr().err.endswith("interpose: stopped.\n")
    assert not any((tmp_path / "out" / name).exists() for name in WRITTEN)
    seen.stop_after = 10**9
    assert run() == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == WRITTEN
    assert seen.scored == 1
    assert len(seen.circuits) == len(set(seen.circuits)) > 20
    # What came out in two goes is what comes out in one.
    found = Result.load(tmp_path / "out" / "result.json")
    assert (found.curve, found.areas, found.top_edges) == (result.curve, result.areas, result.top_edges)


def test_scores_that_are_damaged_or_of_other_settings_are_not_taken(
    run: Run, smallest: Path, tmp_path: Path, seen: Any
) -> None:
    seen.stop_after = 0
    assert run("--model", str(smallest)) == 130
    (kept,) = (tmp_path / "out").glob(".unfinished-*")
    path = kept / "scores.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert run("--model", str(smallest)) == 130
    assert seen.scored == 2
    assert run("--model", str(smallest), "--seed", "1") == 130
    assert seen.scored == 3
    assert len(list((tmp_path / "out").glob(".unfinished-*"))) == 2
