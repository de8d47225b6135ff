"""Write what the demo found into README.md, between its two marks; the same result gives the same text.

.venv/bin/python scripts/readme.py [out/demo/result.json [README.md]]
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from interpose.errors import InterposeError
from interpose.report import Result, story, words

BEGIN, END = "<!-- demo:begin -->", "<!-- demo:end -->"
AREAS = (("cpr", "CPR, higher is better"), ("cmd", "CMD, 0 is best"))


def main(arguments: Sequence[str]) -> int:
    """Rewrite the block.

    Args:
        arguments: the result's path and the page's; each may be left out.

    Returns:
        the exit code: 0 done, 1 where a file or a mark is missing.
    """
    result_path, page = map(Path, [*arguments, *["out/demo/result.json", "README.md"][len(arguments) :]])
    try:
        made = block(Result.load(result_path))
        page.write_text(filled(page, made), encoding="utf-8")
    except InterposeError as error:
        print(f"readme: {error}", file=sys.stderr)
        return 1
    return 0


def filled(page: Path, made: str) -> str:
    """A page's text with a new block.

    Raises:
        InterposeError: there is no such page, or it has not one pair of marks.
    """
    if not page.is_file():
        raise InterposeError(f"There is no file {page}. Run this in the checkout, or name the page.")
    before, *rest = re.split(f"{re.escape(BEGIN)}|{re.escape(END)}", page.read_text(encoding="utf-8"))
    if len(rest) != 2:
        raise InterposeError(f"{page} has no lines {BEGIN} and {END}, one of each, to write between.")
    return f"{before}{BEGIN}\n{made}\n{END}{rest[1]}"


def block(result: Result) -> str:
    """What the README says of a result, as Markdown."""
    parts = [_asked(result), _sizes(result), _areas(result), _verdict(result), _cost(result)]
    return "\n\n".join(parts).replace(words.SPACE, " ")


def _asked(result: Result) -> str:
    accuracy, behaviour = result.accuracy, result.behaviour
    return (
        f"{story.asked(result)} The model itself prefers the right answer in {words.percent(accuracy.rate)} of "
        f"{accuracy.n} pairs (95 % interval {100 * accuracy.low:.3g} to {100 * accuracy.high:.3g} %); its logit "
        f"difference is {words.number(behaviour.clean)}, on the corrupted prompts {words.number(behaviour.corrupt)}."
    )


def _sizes(result: Result) -> str:
    head = ["edges kept", "number", "faithfulness of the circuit", *(f"random: {name}" for name in result.controls)]
    rows = [
        [
            words.percent(size.fraction),
            words.count(size.edges),
            words.interval(size.signed),
            *(words.interval(control) for control in size.controls.values()),
        ]
        for size in result.curve
        if size.fraction in result.verdict.required
    ]
    return _table(head, rows)


def _areas(result: Result) -> str:
    names = ["circuit", *result.controls]
    rows = [[label, *(words.interval(getattr(result.areas[name], area)) for name in names)] for area, label in AREAS]
    return _table(["area over all ten sizes", "circuit", *(f"random: {name}" for name in result.controls)], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _verdict(result: Result) -> str:
    return story.proof(result)


def _cost(result: Result) -> str:
    stages = words.listed([f"{name} {words.duration(seconds)}" for name, seconds in result.timings.items()])
    return (
        f"It took {words.duration(sum(result.timings.values()))} ({stages}) and at most "
        f"{words.memory(result.peak_memory_bytes)} of memory, on {result.machine}. Made on "
        f"{result.created:%Y-%m-%d} by `{result.command}` with seed {result.seed}."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
