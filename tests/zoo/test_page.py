"""docs/zoo.md shows what the cards and the last measurement say, and its script and the benchmark run."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from interpose import discovery
from interpose.errors import SearchError
from interpose.loading.cards import cards

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
RESULT = ROOT / "benchmarks" / "results" / "truth.json"


def module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"of_{path.parent.name}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return module_at(ROOT / "scripts" / "zoo.py")


def test_the_tables_are_those_of_the_cards_and_of_the_measurement(script: ModuleType) -> None:
    assert script.models(cards()) in PAGE
    assert script.truths(json.loads(RESULT.read_text(encoding="utf-8"))) in PAGE
    assert all(f"`{name}`" in PAGE for name, card in cards().items() if card.made is not None)


def test_the_script_fills_both_blocks_and_says_what_is_missing(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "zoo.md"
    page.write_text("a\n<!-- models:begin -->\nold\n<!-- models:end -->\n<!-- truth:begin -->\n\n<!-- truth:end -->\n")
    assert script.main([str(page), str(RESULT)]) == 0
    first = page.read_text()
    assert "old" not in first and "| `sorting-by-hand` |" in first and "| `eap-ig` |" in first
    assert script.main([str(page), str(RESULT)]) == 0
    assert page.read_text() == first
    page.write_text("nothing")
    assert script.main([str(page), str(RESULT)]) == 1
    assert "the page has 0 pairs of lines <!-- models:begin -->" in capsys.readouterr().err
    assert script.main([str(tmp_path / "absent.md")]) == 1


def test_the_benchmark_asks_every_method_that_scores_edges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    truth = module_at(ROOT / "benchmarks" / "truth.py")
    out, load = tmp_path / "truth.json", discovery.load

    class HeadsOnly:
        """Scores no edges."""

        def score(self, model: Any, pairs: Any, mediators: Any) -> Any:
            raise SearchError("it scores heads")

    monkeypatch.setattr(discovery, "load", lambda *names: HeadsOnly if names[1] == "heads-only" else load(*names))
    words = ["--methods", "eap", "heads-only", "random", "--models", "sorting-by-hand", "--pairs", "4"]
    assert truth.main([*words, "--out", str(out)]) == 0
    methods = json.loads(out.read_text())["methods"]
    assert set(methods) == {"eap", "random"}
    assert methods["eap"]["sorting-by-hand"]["auroc"] > 0.9
