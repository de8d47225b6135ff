"""docs/errors.md: a section for each kind of error, its example is what happens, the user's line is first."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from interpose import errors
from interpose.errors import InterposeError, UsageError

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "errors.md").read_text(encoding="utf-8")
SECTIONS = {
    re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"): text
    for heading, text in re.findall(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
}
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n+```text\n(\w+): (.*?)^```", re.MULTILINE | re.DOTALL)
KINDS = {
    "there-is-no-such-site": "NoSuchPlace",
    "there-is-no-such-layer": "LayerError",
    "there-is-no-module-at-this-path": "SiteError",
    "attention-and-mlp-run-in-parallel": "SiteError",
    "a-site-cannot-take-a-value-of-this-shape": "ShapeError",
    "a-site-is-written-with-a-value-that-is-made-later-in-the-same-pass": "RunError",
    "a-value-inside-a-block-has-no-number-yet": "TraceError",
    "this-value-was-not-kept-when-its-block-ended": "TraceError",
    "the-model-has-no-tokenizer": "TraceError",
    "a-value-comes-from-another-batch": "ShapeError",
    "the-parts-of-a-model-have-values-only-inside-a-block": "TraceError",
    "the-site-belongs-to-a-world-and-none-is-open-here": "TraceError",
    "this-value-belongs-to-another-block": "TraceError",
    "memory-ran-out": "RunError",
    "a-folder-was-begun-with-other-settings-prompts-or-weights": "DataError",
}
"""The anchor of each kind, and the error of its first example."""


@pytest.mark.parametrize("anchor", KINDS)
def test_a_kind_of_error_has_an_anchor_what_it_means_and_an_example(anchor: str) -> None:
    examples = EXAMPLE.findall(SECTIONS[anchor])
    assert examples[0][1] == KINDS[anchor]
    advice = re.sub(r"^```.*?^```", "", SECTIONS[anchor], flags=re.MULTILINE | re.DOTALL).strip()
    assert advice


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """The names that the page makes at its top; its model that is loaded is not needed here."""
    setup = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)[0]
    made: dict[str, Any] = {}
    exec(re.sub(r"^model = .*$", "", setup, flags=re.MULTILINE), made)
    return made


@pytest.mark.parametrize("anchor", KINDS)
def test_a_message_begins_with_the_users_own_line(
    anchor: str, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program, kind, shown = EXAMPLE.findall(SECTIONS[anchor])[0]
    with pytest.raises(InterposeError) as raised:
        exec(compile(program, "/home/user/program.py", "exec"), dict(names))
    assert type(raised.value).__name__ == kind
    found = re.fullmatch(r"/home/user/program\.py:(\d+): (.*)", str(raised.value), flags=re.DOTALL)
    assert found is not None, raised.value
    assert program.splitlines()[int(found[1]) - 1].strip(), "the line exists"
    parts = (r"\s+" if part.isspace() else re.escape(part) for part in re.split(r"(\.\.\.|\s+)", shown.strip()))
    assert re.fullmatch("".join(parts).replace(re.escape("..."), ".*?"), found[2].strip(), flags=re.DOTALL), found[2]


def test_every_kind_is_in_the_table_with_its_exit_code() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\d) \|$", PAGE, flags=re.MULTILINE))
    kinds = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if kind is not InterposeError}
    assert set(rows) == kinds
    assert {name for name, code in rows.items() if code == "2"} == {UsageError.__name__}


def test_the_page_says_what_each_example_raises_by_a_name_that_exists() -> None:
    raised = {kind for text in SECTIONS.values() for _, kind, _ in EXAMPLE.findall(text)}
    known = {*vars(errors), "NoSuchPlace", "LayerError"}
    assert raised <= known
    assert {"SiteError", "ShapeError", "TraceError", "RunError", "LoadError", "DataError", "TaskError"} <= raised
