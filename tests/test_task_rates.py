"""What a model can do: the script measures it as a count by hand does, and docs/tasks.md shows what is in the file."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import interpose as ip
from interpose import discovery
from interpose.tasks.base import SPLITS, Rate

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> Any:
    """The script as a module; its neighbours are found as when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("task_rates")
    sys.modules.pop("task_rates")


def test_the_page_shows_what_was_measured_of_every_task(script: Any) -> None:
    measured = json.loads(script.OUT.read_text(encoding="utf-8"))
    shown = script.TABLE.search(script.PAGE.read_text(encoding="utf-8"))
    assert shown is not None
    assert shown[0] == script.table(measured)
    known = {entry.name for entry in discovery.entries("interpose.tasks")}
    assert set(measured["tasks"]) == known
    for rows in measured["tasks"].values():
        for row in rows:
            for split in row.get("splits", {}).values():
                for rate in (split["prefers"], split["first"]):
                    expected = Rate(rate["count"], split["n"])
                    assert (rate["rate"], (rate["low"], rate["high"])) == (expected.value, expected.interval)


def test_a_quick_run_counts_as_a_loop_by_hand_does(script: Any, tmp_path: Path) -> None:
    out, threads = tmp_path / "tasks.json", torch.get_num_threads()
    try:
        assert script.main(["--quick", "--tasks", "arithmetic", "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    rows = json.loads(out.read_text(encoding="utf-8"))["tasks"]["arithmetic"]
    kinds = [(row["settings"].get("operation"), row["counterfactual"]) for row in rows]
    assert kinds == [(operation, kind) for operation in (None, "subtraction") for kind in ("random", "ones_carry")]
    model = ip.load("smollm2-135m-instruct")
    for split in SPLITS:
        pairs = ip.tasks.Arithmetic("subtraction").pairs(model, n=4, split=split, counterfactual="ones_carry")
        prefers = first = 0
        for row in range(4):
            tokens = pairs.clean_tokens[row][pairs.mask[row]]
            with torch.no_grad():
                logits = model.network(tokens[None]).logits[0, -1]
            prefers += int(logits[pairs.answers[row]] > logits[pairs.wrong[row]])
            first += int(logits.argmax() == pairs.answers[row])
        found = rows[-1]["splits"][split]
        assert (found["prefers"]["count"], found["first"]["count"], found["n"]) == (prefers, first, 4)


def test_a_table_says_what_is_at_chance_and_what_was_not_measured(script: Any) -> None:
    rate = {"count": 3, "rate": 0.75, "low": 0.301, "high": 0.954}
    sure = {"count": 4, "rate": 1.0, "low": 0.51, "high": 1.0}
    splits = {split: {"prefers": sure if split == "test" else rate, "first": rate, "n": 4} for split in SPLITS}
    rows = [
        {"settings": {"order": ["up", "down"]}, "counterfactual": "flip", "splits": splits},
        {"settings": {}, "counterfactual": "flip", "reason": "The vocabulary has no such words"},
    ]
    lines = script.table({"model": "tiny", "n": 4, "seed": 0, "tasks": {"sorting": rows}}).splitlines()
    low, high = "75.0 % [30.1, 95.4]", "100.0 % [51.0, 100.0]"
    chance = f"{low} no better than chance"
    assert lines[-2] == f"| `sorting`, up and down | `flip` | {chance} | {chance} | {high} | {low} |"
    assert lines[-1] == "| `sorting` | `flip` | not measured: The vocabulary has no such words | | | |"
