"""A cell's key changes with all that can change the cell, and with nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from interpose.benchmark import cell as module
from interpose.benchmark.cell import Cell, Identity

CELL = Cell("./model", "ioi", "eap-ig", {"steps": 3})
MODEL = Identity("abc", "torch.float32")


@pytest.mark.parametrize(
    "other",
    [
        replace(CELL, task="induction"),
        replace(CELL, method="eap"),
        replace(CELL, settings={"steps": 4}),
        replace(CELL, settings={}),
        replace(CELL, counterfactual="abc"),
        replace(CELL, examples=63),
        replace(CELL, proof=31),
        replace(CELL, draws=6),
        replace(CELL, seed=1),
        replace(CELL, device="cuda"),
        replace(CELL, source="class EAPIG: ..."),
    ],
    ids=repr,
)
def test_another_cell_has_another_key(other: Cell) -> None:
    assert other.key(MODEL) != CELL.key(MODEL) == replace(CELL).key(MODEL)


def test_other_weights_code_or_versions_make_another_cell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = {CELL.key(MODEL), CELL.key(Identity("abd", "torch.float32")), CELL.key(Identity("abc", "torch.float16"))}
    pairs = tmp_path / "pairs.jsonl"
    for text in ("{}", "{} "):
        pairs.write_text(text)
        keys.add(replace(CELL, task=str(pairs)).key(MODEL))
    before = module.versions()
    for name in ("interpose", "torch", "transformers"):
        monkeypatch.setattr(module, "versions", lambda name=name: {**before, name: "0"})
        keys.add(CELL.key(MODEL))
    assert len(keys) == 8
    monkeypatch.setattr(module, "versions", lambda: {**before, "python": "0"})
    assert CELL.key(MODEL) in keys


def test_a_cell_is_named_as_it_is_asked_for() -> None:
    assert CELL.method_label == "eap-ig:steps=3"
    assert CELL.label == "eap-ig:steps=3 on ioi, model"
    assert Cell("m", "ioi", "eap").method_label == "eap"


@pytest.mark.parametrize("name", ["search/mask.py", "engine/cone.py", "tasks/_drawing.py", "methods/base.py"])
def test_a_change_of_shared_code_makes_another_cell(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for file in ("search/mask.py", "engine/cone.py", "tasks/_drawing.py", "methods/base.py", "tasks/base.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("as it was")
    for file in ("methods/acdc.py", "tasks/boxes.py", "report/page.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("as it was")
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    before = CELL.key(MODEL)
    (tmp_path / "methods/acdc.py").write_text("changed")
    (tmp_path / "report/page.py").write_text("changed")
    assert CELL.key(MODEL) == before
    (tmp_path / name).write_text("changed")
    assert CELL.key(MODEL) != before
