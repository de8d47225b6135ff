"""Every example is short, runs by itself, and prints what its docstring says."""

import ast
import re
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import interpose as ip

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
DECIMAL = r"[-+]?\d+\.\d+"


@cache
def once(load: Callable[..., ip.Model]) -> Callable[..., ip.Model]:
    return cache(load)


def promised(example: Path) -> list[str]:
    """The lines under `Prints:`, without blanks at their ends."""
    doc = ast.get_docstring(ast.parse(example.read_text(encoding="utf-8"))) or ""
    return [line.strip() for line in doc.partition("Prints:\n")[2].partition("\n\n")[0].splitlines()]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_it_says(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ip, "load", once(ip.load))
    runpy.run_path(str(example), run_name="__main__")
    printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
    wanted = promised(example)
    assert wanted, f"{example} does not say what it prints"
    assert [re.sub(rf"\s*{DECIMAL}", " *", line) for line in printed] == [
        re.sub(rf"\s*{DECIMAL}", " *", line) for line in wanted
    ]
    numbers, meant = (
        [float(number) for line in lines for number in re.findall(DECIMAL, line)] for lines in (printed, wanted)
    )
    assert numbers == pytest.approx(meant, rel=0.02, abs=0.015)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_uses_the_public_names(example: Path) -> None:
    text = example.read_text(encoding="utf-8")
    assert text.count("\n") <= 40
    assert "import interpose as ip\n" in text
    assert not re.search(r"\b_\w+", text.replace("__init__", "").replace("__name__", "")), "a private name is used"


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4
