"""The main job on a file of one's own pairs."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import interpose as ip
from interpose.cli.main import main
from interpose.report import Result
from interpose.tasks import named


@pytest.fixture
def path(smallest: Path, tmp_path: Path) -> Path:
    """Sixteen pairs that the small model gets right."""
    model = ip.load(smallest)
    return ip.write_pairs(model, ip.tasks.IOI().pairs(model, n=16), tmp_path / "my pairs.jsonl")


@pytest.fixture
def locate(path: Path, smallest: Path, tmp_path: Path) -> Callable[..., int]:
    words = ["--model", str(smallest), "--examples", "8", "--proof", "4", "--out", str(tmp_path / "out")]
    return lambda *more: main(["locate", str(path), *words, *more])


def test_a_file_is_searched_and_proved_with_pairs_that_share_no_prompt(
    locate: Callable[..., int], path: Path, smallest: Path, tmp_path: Path
) -> None:
    assert locate() == 0
    result = Result.load(tmp_path / "out" / "result.json")
    assert (result.question.task, result.question.counterfactual) == ("my pairs.jsonl", "corrupt")
    assert (result.examples.search_split, result.examples.proof_split) == ("train", "test")
    assert str(path) in shlex.split(result.command)
    model = ip.load(smallest)
    search, proof = (named(str(path)).pairs(model, n=n, split=s) for n, s in ((8, "train"), (4, "test")))
    assert not {*search.clean, *search.corrupt} & {*proof.clean, *proof.corrupt}
    assert result.question.clean == proof.clean[0]
    clean = ip.tasks.IOI().accuracy(model, proof)
    assert result.accuracy.rate == clean.prefers.value


def test_a_run_that_was_cut_off_is_not_taken_up_with_another_file(
    locate: Callable[..., int], path: Path, seen: Any
) -> None:
    seen.stop_after = 0
    assert locate() == locate() == 130
    assert seen.scored == 1
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert locate() == 130
    assert seen.scored == 2


def test_too_few_pairs_fail_the_job(locate: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert locate("--proof", "5") == 1
    assert "my pairs.jsonl was asked for n=5 pairs of its split 'test'." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("none.jsonl", 1, "none.jsonl does not exist or is no plain file"),
        ("pairs.txt", 2, "'pairs.txt' is no task; a file of pairs ends in .jsonl, .json, .csv"),
    ],
)
def test_a_file_that_is_not_there_stops_the_job_before_a_model_is_loaded(
    name: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["locate", name, "--model", "./nothing", "--out", str(tmp_path / "out"), "--json"]) == code
    assert said in json.loads(capsys.readouterr().err)["message"]


def test_another_counterfactual_of_a_file_is_wrong_use(
    locate: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert locate("--counterfactual", "abc") == 2
    assert "has no counterfactual 'abc'. There are: corrupt." in capsys.readouterr().err
