"""What README.md and the documentation show is run: their code, what it prints, their commands, links and pictures.

The Python blocks of a page run in order and share their names. A text block right below one is what it prints, or the
error that it raises; decimals are compared with a tolerance, and `...` stands for anything. A comment above a block
says what is special: `<!-- not run: why -->`, or `<!-- run with n=2 for n=64 -->` where the whole would take minutes.
The whole runs where INTERPOSE_WHOLE=1.
"""

import importlib.util
import io
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

import interpose as ip
from interpose import discovery
from interpose.errors import InterposeError
from interpose.report import Result

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
WHOLE = os.environ.get("INTERPOSE_WHOLE") == "1"

FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*) -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
DECIMAL = r"[-+]?\d+\.\d+(?:e[-+]\d+)?"


@dataclass(frozen=True)
class Block:
    """One fenced block of a page, with the comment above it and the output block right below it."""

    page: Path
    line: int
    language: str
    text: str
    note: str
    output: str | None

    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def source(self) -> str:
        """The code that is run, on the lines that it has in the page."""
        code = self.text
        if self.note.startswith("run with ") and not WHOLE:
            for change in self.note.removeprefix("run with ").split(", "):
                new, old = change.split(" for ")
                assert old in code, f"{self.place()}: the comment speaks of {old}, which is not in the block"
                code = code.replace(old, new)
        return "\n" * (self.line - 1) + code


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    assert 2 * len(found) == len(re.findall(r"^\s*```", text, flags=re.MULTILINE)), (
        f"{page}: a fence is indented or open"
    )
    for match, below in zip_longest(found, found[1:]):
        prints = below is not None and below["language"] == "text" and not text[match.end() : below.start()].strip()
        line = text.count("\n", 0, match.start("text")) + 1
        output = below["text"] if below is not None and prints else None
        yield Block(page, line, match["language"], match["text"], match["note"] or "", output)


def pattern_of(part: str) -> str:
    if part == "...":
        return ".*?"
    if re.fullmatch(DECIMAL, part):
        return f"({DECIMAL})"
    return r"\s+" if part.isspace() else re.escape(part)


def differs(shown: str, found: str) -> bool:
    """Whether what a page shows is not what was found: blanks count alike, decimals within 2 %, `...` is anything."""
    parts = re.split(rf"(\.\.\.|{DECIMAL}|\s+)", shown.strip())
    pattern = "".join(map(pattern_of, parts))
    match = re.fullmatch(pattern, found.strip(), flags=re.DOTALL)
    if match is None:
        return True
    wanted = [float(part) for part in parts if re.fullmatch(DECIMAL, part)]
    pairs = zip(wanted, map(float, match.groups()), strict=True)
    return any(abs(one - other) > 0.02 * abs(one) + 0.005 for one, other in pairs)


@pytest.fixture
def loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages load the default model as a reader would; here it is read from the disk once."""
    monkeypatch.setattr(ip, "load", once(ip.load))


@cache
def once(load: Callable[..., ip.Model]) -> Callable[..., ip.Model]:
    return cache(load)


def run(block: Block, names: dict[str, Any]) -> str:
    """What a block prints, or the error that it raises, as a page shows it."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            exec(compile(block.source(), block.place(), "exec"), names)
    except InterposeError as error:
        if not (block.output or "").startswith(f"{type(error).__name__}: "):
            raise
        message = re.sub(rf"^{re.escape(block.place())}:\d+: ", "", str(error))
        return f"{printed.getvalue()}{type(error).__name__}: {message}"
    return printed.getvalue()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs_and_prints_what_is_shown(
    page: Path,
    loaded_once: None,
    make_result: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "demo").mkdir(parents=True)
    make_result().save("out/demo/result.json")
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language != "python" or block.note.startswith("not run: "):
            continue
        found = run(block, names)
        if block.note and not WHOLE:
            continue
        assert not differs(block.output or "", found), f"{block.place()} shows\n{block.output}\nand gives\n{found}"


def test_a_comment_above_a_block_is_one_that_is_understood() -> None:
    notes = [block.note for page in PAGES for block in blocks(page) if block.note]
    known = r"not run: \w.*|run with \S+ for \S+(, \S+ for \S+)*|demo:begin"
    assert [note for note in notes if not re.fullmatch(known, note)] == []


@pytest.mark.parametrize(
    ("shown", "found", "same"),
    [
        ("a  1.50 [2, 3]\n", "a 1.51   [2, 3]", True),
        ("a 1.50", "a 1.6", False),
        ("a 2", "a 3", False),
        ("one ... four", "one two\nthree four", True),
        ("one ... four", "one two three", False),
        ("-0.001", "+0.0011", True),
        ("", "printed", False),
        ("printed", "", False),
    ],
)
def test_the_comparison_of_output_can_fail(shown: str, found: str, same: bool) -> None:
    assert differs(shown, found) is not same


def commands() -> list[tuple[str, str]]:
    """Every line of the shell that a page shows, with its place."""
    shell = [block for page in PAGES for block in blocks(page) if block.language in ("bash", "sh")]
    return [
        (f"{block.page.relative_to(ROOT)}:{block.line + at}", line.split(" #")[0].strip())
        for block in shell
        for at, line in enumerate(block.text.splitlines())
    ]


def test_every_command_that_a_page_shows_exists() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    shown = [(place, line.split()) for place, line in commands() if line.startswith(("make ", "interpose "))]
    assert {words[0] for _, words in shown} == {"make", "interpose"}
    for place, (program, *words) in shown:
        if program == "make":
            assert [word for word in words if "=" not in word and word not in targets] == [], place
        else:
            check_command(place, words)


def check_command(place: str, words: list[str]) -> None:
    command = discovery.load("interpose.cli", words[0])
    options = {f"--{name.replace('_', '-')}" for name in command.__dataclass_fields__} | {"--help", "--debug"}
    assert [word for word in words if word.startswith("--") and word not in options] == [], place
    if words[0] == "locate":
        assert ip.tasks.named(words[1]), place


def test_the_readme_names_the_two_commands() -> None:
    assert {"make demo", "make test"} <= {line for place, line in commands() if place.startswith("README.md")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_picture_of_a_page_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", text)
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


def test_the_layers_that_pages_print_are_those_that_the_tool_checks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (each for each in project["tool"]["importlinter"]["contracts"] if each["id"] == "layers")
    wanted = [set(re.findall(r"\w+", layer)) for layer in contract["layers"]]
    for page in (ROOT / "ARCHITECTURE.md", ROOT / "docs" / "developing.md"):
        (printed,) = (block.text for block in blocks(page) if block.text.startswith("cli"))
        assert [set(re.findall(r"\w+", line.split("  ")[0])) for line in printed.splitlines()] == wanted, page


def test_the_architecture_has_a_paragraph_a_package_and_names_files_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    paragraphs = dict(re.findall(r"^\*\*(\w+)\*\* (.*?)\n\n", text, flags=re.MULTILINE | re.DOTALL))
    source = ROOT / "src" / "interpose"
    modules = {path.stem for path in source.glob("*.py")} - {"__init__"}
    assert set(paragraphs) == {path.parent.name for path in source.glob("*/__init__.py")} | modules
    named = [
        (source / package, name) for package, said in paragraphs.items() for name in re.findall(r"`(\w+\.py)`", said)
    ]
    assert [str(folder / name) for folder, name in named if not (folder / name).exists()] == []
    anywhere = re.findall(r"`(\w+/\w+\.py)`", text)
    assert [name for name in anywhere if not ((source / name).exists() or (ROOT / name).exists())] == []


def module_at(path: Path) -> Any:
    """A Python file that is no part of the package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> Any:
    return module_at(ROOT / "scripts" / "readme.py")


@pytest.fixture(scope="module")
def make_result() -> Callable[..., Result]:
    return module_at(ROOT / "tests" / "report" / "conftest.py").make_result


def test_the_demo_block_says_what_the_result_says(
    script: Any, make_result: Callable[..., Result], tmp_path: Path
) -> None:
    result = make_result()
    path, readme = result.save(tmp_path / "result.json"), tmp_path / "README.md"
    readme.write_text("before\n<!-- demo:begin -->\nwhat stood here\n<!-- demo:end -->\nafter\n", encoding="utf-8")
    assert script.main([str(path), str(readme)]) == 0
    first = readme.read_text(encoding="utf-8")
    assert first.startswith("before\n<!-- demo:begin -->\n") and first.endswith("\n<!-- demo:end -->\nafter\n")
    assert "what stood here" not in first
    rows = [line for line in first.splitlines() if re.match(r"\| \d", line)]
    assert [row.split("|")[1].strip() for row in rows] == ["2 %", "5 %", "10 %", "20 %"]
    for row, size in zip(rows, [size for size in result.curve if size.fraction in (0.02, 0.05, 0.1, 0.2)], strict=True):
        shown = [float(number) for number in re.findall(r"-?\d+\.\d+", row.replace("\N{MINUS SIGN}", "-"))]
        meant = [size.signed, *size.controls.values()]
        wanted = [round(value, 2) for each in meant for value in (each.mean, each.low, each.high)]
        assert shown == pytest.approx(wanted, abs=0.006)
        assert f"{size.edges:,}" in row
    for said in (result.model.name, result.model.note, "IOI", "CPR", "CMD", "GB", result.machine, "and holds"):
        assert said in first
    assert script.main([str(path), str(readme)]) == 0
    assert readme.read_text(encoding="utf-8") == first


def test_the_demo_block_says_where_the_claim_fails(script: Any, make_result: Callable[..., Result]) -> None:
    assert "and fails" in script.block(make_result(holds=False))


@pytest.fixture
def folder(make_result: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to work in, with a result and a page without marks."""
    monkeypatch.chdir(tmp_path)
    make_result().save("result.json")
    Path("bare.md").write_text("nothing here\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.json", "README.md"], "There is no result at absent.json"),
        (["result.json", "absent.md"], "There is no file absent.md"),
        (["result.json", "bare.md"], "bare.md has no lines <!-- demo:begin --> and <!-- demo:end -->"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_the_script_says_what_is_missing(
    arguments: list[str], message: str, script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(arguments) == 1
    assert message in capsys.readouterr().err
