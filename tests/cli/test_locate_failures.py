"""What stops the main job: wrong use exits with 2 before anything is done, a job that fails with 1 and a reason."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import interpose as ip
from interpose import discovery
from interpose.cli.main import main
from interpose.report import Result
from interpose.tasks.base import Rate
from interpose.tasks.ioi import IOI

WRITTEN = {"report.html", "result.json", "scores.safetensors"}
Run = Callable[..., int]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "eap-igg"], "there is no method called 'eap-igg'. Did you mean 'eap-ig'?"),
        (["--examples", "1"], "--examples is 1; write a number from 2 to 10,000."),
        (["--proof", "0"], "--proof is 0; write a number from 2 to 10,000."),
        (["--proof", "3"], "--proof is 3; so few pairs cannot tell a model that does the task from a coin: with all"),
        (["--proof", "2"], "Write 4 or more, or --at-chance go-on to search whatever the model can do."),
        (["--examples", "10001"], "--examples is 10001; write a number from 2 to 10,000."),
        (["--draws", "4"], "--draws is 4; write 5 or more."),
        (["--batch-size", "0"], "--batch-size is 0; write a number of pairs, 1 or more."),
        (["--counterfactual", "nope"], "ioi has no counterfactual 'nope'. There are: s2_io_flip, random_names, abc, "),
        (["--examples", "many"], "Error parsing --examples"),
        (["--exmaples", "4"], "Unrecognized options: --exmaples"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_exits_with_2_before_a_model_is_loaded(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["locate", "ioi", "--model", "./nothing", "--out", str(tmp_path / "out"), *words]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert message in written.err


def test_an_unknown_task_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["locate", "nonsense", "--model", "./nothing", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "there is no task called 'nonsense'. There are: " in said
    assert all(entry.name in said for entry in discovery.entries("interpose.tasks"))


def test_a_model_that_is_not_there_fails_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["locate", "ioi", "--model", "./nothing", "--out", str(tmp_path / "out")]) == 1
    assert "There is no folder nothing" in capsys.readouterr().err


def test_a_model_without_a_tokenizer_fails_the_job(
    saved: Callable[..., Path], run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "model", layers=1, heads=2)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert run("--model", str(folder)) == 1
    assert "This model has no tokenizer, so prompts cannot be turned into tokens." in capsys.readouterr().err


def test_at_chance_the_job_stops_before_the_search_and_names_the_rate(
    saved: Callable[..., Path], run: Run, tmp_path: Path, seen: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "model", layers=2, heads=2, able=False)
    assert run("--model", str(folder), "--proof", "24") == 1
    said = " ".join(capsys.readouterr().err.split())
    model = ip.load(folder)
    rate = IOI().accuracy(model, IOI().pairs(model, n=24, split="test")).prefers
    assert rate.interval[0] < 0.5
    assert (
        f"does ioi no better than chance: it prefers the answer to the wrong one in {rate} of 24 held-out pairs" in said
    )
    assert "Choose another task or --model" in said
    assert "write --at-chance go-on to search all the same" in said
    assert ("take more pairs" in said) == (rate.value > 0.5)
    assert seen.scored == 0
    assert list((tmp_path / "out").iterdir()) == []


def test_a_rate_above_one_half_at_chance_says_how_many_pairs_would_tell(
    folder: Path, run: Run, seen: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of four pairs is turned round: three are right, which a coin does as well, and twelve of sixteen are not."""
    draw = IOI.pairs

    def turned(task: IOI, model: ip.Model, **settings: Any) -> Any:
        pairs = draw(task, model, **settings)
        turn = torch.arange(len(pairs)) == 0
        answers, wrong = (
            torch.where(turn, *both) for both in ((pairs.wrong, pairs.answers), (pairs.answers, pairs.wrong))
        )
        return replace(pairs, answers=answers, wrong=wrong)

    assert IOI().accuracy(ip.load(folder), IOI().pairs(ip.load(folder), n=4, split="test")).prefers.count == 4
    monkeypatch.setattr(IOI, "pairs", turned)
    assert run("--proof", "4") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"{Rate(3, 4)} of 4 held-out pairs" in said
    assert "take more pairs (a rate like this one lies above chance from --proof 16 on)" in said
    assert Rate(12, 16).interval[0] > 0.5
    assert seen.scored == 0


def test_a_search_can_go_on_at_chance(
    smallest: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--model", str(smallest), "--proof", "3", "--at-chance", "go-on") == 0
    assert "warning: " in capsys.readouterr().err
    result = Result.load(tmp_path / "out" / "result.json")
    assert result.command.endswith("--at-chance go-on")


def test_a_model_that_cannot_do_the_task_fails_the_job_and_says_why(
    saved: Callable[..., Path], run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where clean and corrupt prompts do not differ there is no share of a difference to speak of."""
    folder = saved(tmp_path / "model", layers=2, heads=2, able=False)
    assert run("--model", str(folder), "--at-chance", "go-on") == 1
    said = capsys.readouterr().err
    assert "The whole model and the corrupted run cannot be told apart on these 4 examples" in said
    assert "Take more examples, or keep only those that the model gets right." in said
    assert not any((tmp_path / "out" / name).exists() for name in WRITTEN)


def test_with_json_a_failure_is_json_and_nothing_is_printed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json", "--method", "nonsense") == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert json.loads(written.err)["error"] == "UsageError"


@pytest.mark.parametrize("under", ["a file", "a file/below"])
def test_where_nothing_can_be_written_it_says_so_before_a_model_is_loaded(
    under: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a file").write_text("")
    assert main(["locate", "ioi", "--model", "./nothing", "--out", str(tmp_path / under)]) in (1, 2)
    said = capsys.readouterr().err
    assert f"Nothing can be written to {tmp_path / under}: " in said
    assert "Name another folder: --out." in said
