"""The page: complete in itself, true to its numbers, and safe with any text."""

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from interpose.errors import InterposeError
from interpose.report import Result, html, picture, write

KINDS = ["holds", "fails", "tiny", "long", "large"]


class Page(HTMLParser):
    """A page taken apart: its tags with their attributes, the cells of its tables, its readable text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self.script = ""
        self._inside: list[str] = []
        self._rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)
        if tag == "table":
            self._rows = self.tables.setdefault(dict(attrs)["id"] or "", [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self._inside:
            self.script += data
        elif "style" not in self._inside:
            self.text += data
            if "td" in self._inside or "th" in self._inside:
                self._rows[-1][-1] += data


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_complete_in_itself(pages: dict[str, Path], kind: str) -> None:
    text = pages[kind].read_text()
    page = Page(text)
    for tag, attributes in page.tags:
        for name in ("src", "href", "data", "action", "srcset", "poster", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), f"<{tag} {name}> leads out of the page"
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        assert not [name for name in attributes if name.startswith("on")], "a handler in the markup"
    assert not re.search(r"https?://|url\((?!#)|@import|\bfetch\(|XMLHttpRequest|import\(", text)
    assert not re.search(r"\{\{|\}\}|\{%|%\}|\{#(?!\w{3,8};)", text), "a piece of the template is left"
    assert pages[kind].stat().st_size < 2_000_000
    assert "Undefined" not in page.text and "None" not in page.text


def test_the_policy_allows_the_page_s_own_script_and_no_other(pages: dict[str, Path]) -> None:
    page = Page(pages["holds"].read_text())
    (policy,) = [a["content"] or "" for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_unique_and_every_part_has_a_name(pages: dict[str, Path], kind: str) -> None:
    page = Page(pages[kind].read_text())
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [tag for tag, _ in page.tags].count("h1") == 1
    focusable = [a for tag, a in page.tags if a.get("tabindex") == "0" and tag != "pre"]
    assert focusable and all(attributes.get("aria-label") for attributes in focusable)


def test_the_verdict_is_said_plainly(pages: dict[str, Path]) -> None:
    good, bad = Page(pages["holds"].read_text()).text, Page(pages["fails"].read_text()).text
    assert "The claim holds" in good and "The claim fails" not in good
    assert "The claim fails" in bad and "No proven circuit" in bad
    assert "The claim holds" not in bad and "the claim holds" not in bad and "and holds" not in bad


def plain(value: float) -> str:
    """Two digits and a true minus, written independently of the page's own way."""
    rounded = round(value, 2) + 0.0
    return f"{rounded:.2f}".replace("-", "−")


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_sizes_has_the_result_s_numbers(
    results: dict[str, Result], pages: dict[str, Path], kind: str
) -> None:
    result = results[kind]
    head, *rows = Page(pages[kind].read_text()).tables["sizes"]
    assert head[5:7] == [f"Random, {name}" for name in result.controls]
    assert len(rows) == len(result.curve)
    for row, size in zip(rows, result.curve, strict=True):
        cells = [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row]
        assert float(cells[0].rstrip("*").removesuffix(" %")) == pytest.approx(100 * size.fraction)
        assert cells[0].endswith("*") == (size.fraction in result.verdict.required)
        assert [int(cell.replace(",", "")) for cell in cells[1:3]] == [size.edges, size.edges_after_pruning]
        for cell, value in zip(cells[3:7], (size.signed, size.absolute, *size.controls.values()), strict=True):
            assert cell == f"{plain(value.mean)} [{plain(value.low)}, {plain(value.high)}]"
        if size.edges < result.edges:
            assert cells[7] == ("✓ yes" if size.above_controls else "✗ no")


def test_the_table_of_areas_has_the_result_s_numbers(results: dict[str, Result], pages: dict[str, Path]) -> None:
    rows = Page(pages["holds"].read_text()).tables["areas"][1:]
    for row, key in zip(rows, ("cpr", "cmd", "cpr_log", "cmd_log"), strict=True):
        for cell, ranking in zip(row[2:], ("circuit", "uniform", "shuffled"), strict=True):
            assert cell.startswith(plain(getattr(results["holds"].areas[ranking], key).mean))


def test_the_table_of_edges_has_the_result_s_edges(results: dict[str, Result], pages: dict[str, Path]) -> None:
    rows = Page(pages["holds"].read_text()).tables["top-edges"][1:]
    assert len(rows) == len(results["holds"].top_edges)
    entries = {"query": "<q>", "key": "<k>", "value": "<v>", "": ""}
    for row, edge in zip(rows, results["holds"].top_edges, strict=True):
        name = re.sub(r"head (\d+)\.(\d+)", r"a\1.h\2", row[2]).removeprefix("MLP ") + entries[row[3]]
        assert name == edge.destination
        assert float(row[4].replace("−", "-")) == pytest.approx(edge.score, abs=6e-5)


def test_everything_needed_to_run_it_again_is_there(results: dict[str, Result], pages: dict[str, Path]) -> None:
    result, text = results["holds"], Page(pages["holds"].read_text()).text
    wanted = [result.command, result.model.weights_hash, result.model.note, result.model.licence, result.machine]
    wanted += [*result.versions, *result.versions.values(), "steps = 5, batch = 8", "s2_io_flip", "4-bit, dequantised"]
    assert [piece for piece in wanted if piece not in text] == []


def test_every_head_s_importance_can_be_read(results: dict[str, Result], pages: dict[str, Path]) -> None:
    text = Page(pages["holds"].read_text()).text
    for layer, row in enumerate(results["holds"].heads):
        for head, value in enumerate(row):
            assert text.count(f"head {layer}.{head}: ") == 2, "once in either shape"
            if abs(value) >= 0.001:
                assert f"head {layer}.{head}: {value:+.4f}".replace("-", "−") in text


def test_the_prompts_mark_just_the_words_that_differ(pages: dict[str, Path]) -> None:
    text = pages["holds"].read_text()
    assert re.findall(r"<mark>(.*?)</mark>", text) == ["Tom", "Sarah"]


def test_making_a_page_loads_no_torch() -> None:
    code = "import sys, interpose.report; print(sorted({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_hostile_text_stays_text(make: Callable[..., Result]) -> None:
    evil = "<script>window.pwned=1</script><img src=x onerror=alert(1)>{{ 7 * 7 }}\"'</style>"
    data = make(layers=1, heads=1, edges=5).model_dump()
    data["question"] |= {"task": evil, "description": evil, "clean": evil, "corrupt": "", "answer": evil, "wrong": evil}
    data["model"] |= {"name": evil, "source": evil, "note": evil, "licence": evil, "weights_hash": evil}
    data["method"] = {"name": evil, "settings": {evil: evil}, "summary": evil}
    data |= {"command": evil, "machine": evil, "versions": {evil: evil}, "timings": {evil: 1.0}}
    page = Page(html(Result.model_validate(data)))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in page.tags]
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert evil in page.text and "pwned" not in page.script


def test_a_page_is_written_whole_or_not_at_all(results: dict[str, Result], tmp_path: Path) -> None:
    path = write(results["tiny"], tmp_path / "report.html")
    assert path.read_text() == html(results["tiny"])
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_a_picture_without_a_browser_or_a_page_says_so(
    pages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture.shutil, "which", lambda name: "/bin/false" if name == "chromium" else None)
    with pytest.raises(InterposeError, match="There is no page at"):
        picture.take(tmp_path / "no.html", tmp_path / "a.png")
    with pytest.raises(InterposeError, match="Chromium made no picture"):
        picture.take(pages["tiny"], tmp_path / "a.png")
    monkeypatch.setattr(picture.shutil, "which", lambda name: None)
    with pytest.raises(InterposeError, match="needs Chromium, but none of chromium, .* is installed"):
        picture.take(pages["tiny"], tmp_path / "a.png")


def test_an_interval_beyond_the_plot_is_said_and_does_not_flatten_the_curve(make: Callable[..., Result]) -> None:
    data = make(layers=1, heads=1, edges=5).model_dump()
    data["curve"][1]["absolute"] |= {"low": -90.0, "high": 90.0}
    text = html(Result.model_validate(data))
    assert "Some intervals reach beyond the plot" in text
    assert "[−90.00,\N{NO-BREAK SPACE}90.00]" in text
    assert len(re.findall(r'class="grid"', text)) >= 6, "too few lines of the scale are left"
    assert "Some intervals" not in html(make(layers=1, heads=1, edges=5))
