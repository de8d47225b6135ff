"""Run what the pages on other libraries show of those libraries, and compare it with what they show of interpose.

    .venv-peers/bin/python benchmarks/pages.py [nnsight ...]    after `make bench` has made .venv-peers

In docs/coming-from a block below `<!-- not run: LIBRARY -->` is the other library's. Its blocks run in order, on the
weights of the default model; what one prints is compared with the output that the page shows for interpose's block
after it. The tests run interpose's blocks.
"""

import os

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import interpose as ip

PAGES = Path(__file__).resolve().parents[1] / "docs" / "coming-from"
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
MARK = "---- block at line "
FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*) -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


def main(arguments: Sequence[str]) -> int:
    """Check the pages.

    Args:
        arguments: names of libraries; all where there are none.

    Returns:
        the exit code: 1 where a block fails or prints something else.
    """
    failed = False
    for page in sorted(PAGES.glob("*.md")):
        if arguments and page.stem not in arguments:
            continue
        for line, complaint in _complaints(page):
            failed = True
            print(f"{page.name}:{line}: {complaint}")
    print("something differs" if failed else "all blocks give what the pages show")
    return int(failed)


def _complaints(page: Path) -> Iterator[tuple[int, str]]:
    theirs = list(_theirs(page.read_text(encoding="utf-8"), page.stem))
    folder = ip.load("smollm2-135m-instruct").network.name_or_path
    code = "".join(f"print({MARK + str(line)!r})\n{text}\n" for line, text, _ in theirs).replace(HUB, folder)
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "theirs.py"
        program.write_text(code, encoding="utf-8")
        run = subprocess.run([sys.executable, program], capture_output=True, text=True, cwd=scratch, check=False)
    printed = {int(part.split("\n")[0]): part.partition("\n")[2] for part in run.stdout.split(MARK)[1:]}
    last = max(printed, default=0)
    for line, _, shown in theirs:
        if run.returncode and line == last:
            yield line, f"fails: {run.stderr.strip().splitlines()[-1]}"
        if line > last:
            yield line, "was not reached"
        elif shown is not None and printed[line].strip() and _words(printed[line]) != _words(shown):
            yield line, f"prints {printed[line].strip()!r}; the page shows {shown.strip()!r}"


def _theirs(text: str, library: str) -> Iterator[tuple[int, str, str | None]]:
    """The line, code and expected output of each block of the library."""
    found = list(FENCE.finditer(text))
    for at, match in enumerate(found):
        if match["note"] == f"not run: {library}":
            after = found[at + 1 : at + 3]
            shown = after[1]["text"] if [each["language"] for each in after] == ["python", "text"] else None
            yield text.count("\n", 0, match.start("text")) + 1, match["text"], shown


def _words(text: str) -> list[str]:
    """What is printed, with numbers rounded to three digits that count."""
    return [f"{float(word):.3g}" if re.fullmatch(r"-?\d+\.\d+", word) else word for word in text.split()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
