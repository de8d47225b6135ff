"""`interpose zoo`: lists, explains and makes the models that interpose makes itself."""

import json
from pathlib import Path

import pytest

import interpose as ip
from interpose.cli.main import main
from interpose.loading.cards import cards


def test_the_list_has_every_card_with_those_made_here_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} == set(cards())
    made = [cards()[row["name"]].made is not None for row in rows]
    assert made == sorted(made, reverse=True)
    assert main(["zoo", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cards())
    assert "`interpose zoo show NAME` explains one." in shown


def test_a_model_is_shown_with_its_scores_and_its_circuit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "show", "induction-by-hand"]) == 0
    shown = capsys.readouterr().out
    assert "1.0000 [0.9926, 1.0000], n=512" in shown
    assert "  a0.h0->a1.h0<k>\n" in shown
    assert "interpose zoo train induction-by-hand" in shown
    assert main(["zoo", "show", "induction-by-hand", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["truth"]["edges"] == list(cards()["induction-by-hand"].truth.edges)  # type: ignore[union-attr]
    assert document["made"]["steps"] == 0


def test_a_model_is_made_again_with_the_same_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a folder"
    assert main(["zoo", "train", "induction-by-hand", "--out", str(out), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    card = cards()["induction-by-hand"]
    assert written["scores"]["first"] == vars(card.scores["first"])
    assert ip.load(out).info.weights_hash == written["weights"]["sha256"]
    assert main(["zoo", "train", "induction-by-hand", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("prefers  1.0000  [0.9926, 1.0000]  n=512\n")
    assert "274,208 parameters, weights computed, not trained" in shown


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["show", "nothing"], 2, "there is no model in the zoo called 'nothing'. There are: "),
        (["train", "nothing"], 2, "called 'nothing'. There are: "),
        (["train", "smollm2-135m-instruct"], 2, "called 'smollm2-135m-instruct'. There are: "),
        (["train", "sorting-by-hand", "--steps", "-1"], 2, "--steps -1 is no number of steps; expected 0 or more."),
        (["train", "sorting-by-hand", "--steps", "4"], 1, "are computed, not trained: leave --steps out."),
        (["train", "sorting-by-hand", "--device", "nowhere"], 1, "device='nowhere' cannot be used here: "),
        (["paint"], 2, "paint"),
        ([], 2, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_says_what_there_is(
    words: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["zoo", *words]) == code
    assert message in " ".join(capsys.readouterr().err.split())
