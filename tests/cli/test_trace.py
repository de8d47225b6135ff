"""`interpose trace`: one prompt through a model, shown in the terminal, as pictures, or as JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from transformers import AutoModelForCausalLM, AutoTokenizer

from interpose.cli import _look
from interpose.cli.main import main

PROMPT = "John gave Mary the ball"
Run = Callable[..., int]


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Run:
    """Runs the command on the small model, with pictures in `out` of this test's own folder."""
    return lambda *more: main(["trace", PROMPT, "--model", str(folder), "--out", str(tmp_path / "my out"), *more])


@pytest.fixture(scope="module")
def stock(folder: Path) -> tuple[Any, Any]:
    """The tokenizer and the network as transformers load them."""
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    return AutoTokenizer.from_pretrained(folder), network


def test_tokens_and_the_next_ones_are_those_of_the_stock_model(
    run: Run, stock: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--json", "--top", "3") == 0
    written = capsys.readouterr()
    document = json.loads(written.out)
    tokenizer, network = stock
    ids = tokenizer(PROMPT)["input_ids"]
    assert [token["id"] for token in document["tokens"]] == ids
    assert "".join(token["token"] for token in document["tokens"]) == PROMPT
    with torch.no_grad():
        best = network(torch.tensor([ids])).logits[0, -1].softmax(-1).topk(3)
    assert [row["id"] for row in document["next"]] == best.indices.tolist()
    assert [row["probability"] for row in document["next"]] == pytest.approx(best.values.tolist(), rel=1e-4)
    assert set(document) == {"model", "prompt", "tokens", "next"}
    assert not (tmp_path / "my out").exists(), "nothing is written that was not asked for"


def test_lens_and_attention_are_shown_and_their_pictures_written(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--lens", "--target", " Mary", "--attention", "-1") == 0
    shown = capsys.readouterr().out
    assert "next" in shown and " %" in shown
    assert "Logit lens of" in shown and "the rank of ' Mary'" in shown
    assert "Attention of layer 1 in" in shown
    for name in ("lens", "attention"):
        picture = tmp_path / "my out" / f"{name}.png"
        assert f"{name.capitalize()}: {picture}" in shown
        assert imread(picture).shape[0] > 300


def test_json_has_the_lens_and_the_patterns(
    run: Run, stock: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--lens", "--attention", "0", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    count = len(stock[0](PROMPT)["input_ids"])
    assert [len(row) for row in document["lens"]["layers"]] == [count] * 2
    assert document["lens"]["layers"][-1][-1]["token"] == document["next"][0]["token"]
    assert document["lens"]["picture"] == str(tmp_path / "my out" / "lens.png")
    heads = document["attention"]["heads"]
    assert [head["head"] for head in heads] == [0, 1]
    assert [sum(row) for head in heads for row in head["pattern"]] == pytest.approx([1.0] * 2 * count, rel=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([""], 'The prompt is empty; write at least one character: interpose trace "The cat".'),
        (["a", "--top", "0"], "--top is 0; write a number from 1 to 1,000."),
        (["a", "--target", " b"], "--target says whose rank the lens shows; write --lens too."),
        (["a", "--lenz"], "Unrecognized options: --lenz"),
        (["a", "--attention", "x"], "Error parsing --attention"),
        ([], "PROMPT"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_exits_with_2_before_a_model_is_loaded(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_look, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    assert main(["trace", *words]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert message in written.err
    assert "Traceback" not in written.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attention", "2"], "a small model has 2 layers: write 0 to 1."),
        (["--attention", "-3"], "--attention is -3, but"),
        (["--lens", "--target", "Mary John"], "interpose: the target 'Mary John' is "),
    ],
    ids=" ".join,
)
def test_what_the_model_does_not_have_is_wrong_use(
    words: list[str], message: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_fails_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_look, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    (tmp_path / "file").touch()
    assert main(["trace", "a", "--lens", "--out", str(tmp_path / "file" / "out")]) == 1
    assert "Name another folder: --out." in capsys.readouterr().err


def test_a_model_that_is_not_there_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "a", "--model", "./nothing"]) == 1
    assert "There is no folder nothing" in capsys.readouterr().err


def test_a_model_without_a_tokenizer_fails_without_a_line_of_a_program(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "bare")
    assert main(["trace", "a", "--model", str(tmp_path / "bare")]) == 1
    message = capsys.readouterr().err
    assert "no tokenizer" in message
    assert ".py" not in message


def test_the_default_model_knows_where_the_tower_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--lens", "--target", " Paris", "--out", str(tmp_path), "--top", "2"]
    assert main(["trace", "The Eiffel Tower is in the city of", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("·Paris")).split()[1] == "7042"
    assert lines[-2].split()[-3:] == [] or lines[-1].endswith("lens.png")
    assert [line for line in lines if line.startswith("   29 ")][0].endswith("#1")
