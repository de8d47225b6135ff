"""Write what was measured into README.md, each between its two marks; the same result gives the same text.

.venv/bin/python scripts/readme.py [out/demo/result.json [README.md]]                   what the demo found
.venv/bin/python scripts/readme.py --cost [benchmarks/results/engine.json [README.md]]  what a run costs
.venv/bin/python scripts/readme.py --speed [benchmarks/results/speed.json [README.md]]  how fast experiments are
"""

import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from interpose.errors import InterposeError
from interpose.report import Result, story, words

DEMO, COST, SPEED = "demo", "cost", "speed"
RESULTS = {
    DEMO: "out/demo/result.json",
    COST: "benchmarks/results/engine.json",
    SPEED: "benchmarks/results/speed.json",
}
AREAS = (("cpr", "CPR, higher is better"), ("cmd", "CMD, 0 is best"))


def main(arguments: Sequence[str]) -> int:
    """Rewrite a block.

    Args:
        arguments: `--cost` or `--speed` for these, then the result's path and the page's; each may be left out.

    Returns:
        the exit code: 0 done, 1 where a file or a mark is missing.
    """
    name = next((name for name in (COST, SPEED) if f"--{name}" in arguments), DEMO)
    given = [argument for argument in arguments if argument != f"--{name}"]
    result_path, page = map(Path, [*given, *[RESULTS[name], "README.md"][len(given) :]])
    try:
        made = _block(name, result_path)
        page.write_text(filled(page, made, name), encoding="utf-8")
    except InterposeError as error:
        print(f"readme: {error}", file=sys.stderr)
        return 1
    return 0


def _block(name: str, path: Path) -> str:
    if name == DEMO:
        return block(Result.load(path))
    if name == COST:
        return costs(_measured(path))
    cuda = path.with_name("speed-cuda.json")
    return speeds(_measured(path), _measured(cuda) if cuda.is_file() else None)


def filled(page: Path, made: str, name: str = DEMO) -> str:
    """A page's text with a new block.

    Args:
        page: the page.
        made: the block.
        name: which block.

    Raises:
        InterposeError: there is no such page, or it has not one pair of marks.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if not page.is_file():
        raise InterposeError(f"There is no file {page}. Run this in the checkout, or name the page.")
    before, *rest = re.split(f"{re.escape(begin)}|{re.escape(end)}", page.read_text(encoding="utf-8"))
    if len(rest) != 2:
        raise InterposeError(f"{page} has no lines {begin} and {end}, one of each, to write between.")
    return f"{before}{begin}\n{made}\n{end}{rest[1]}"


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


def costs(measured: dict[str, Any]) -> str:
    """What the README says of what a run costs, as Markdown.

    Args:
        measured: what `benchmarks/engine.py` wrote.
    """
    parts = [_cost_table(measured), _left_out(measured), _small_costs(measured), _made(measured)]
    return "\n\n".join(part for part in parts if part)


def _measured(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InterposeError(f"There are no measurements at {path}. `make bench` makes them.")
    return json.loads(path.read_text(encoding="utf-8"))


def _cost_table(measured: dict[str, Any]) -> str:
    tables = measured["tables"]
    names = dict.fromkeys(row["name"] for table in tables for row in table["rows"] if "ratio" in row)
    cells: dict[str, list[str]] = {name: [] for name in names}
    for table in tables:
        rows = {row["name"]: row for row in table["rows"]}
        for name in names:
            cells[name].append(_cell(rows.get(name, {})))
    head = ["", *(f"{table['model']['name']}, {table['task']}" for table in tables)]
    return _table(head, [[_named(name, measured["versions"]), *found] for name, found in cells.items()])


def _cell(row: dict[str, Any]) -> str:
    if "ratio" not in row:
        return ""
    ratio = row["ratio"]
    time = f"{row['milliseconds']:.3g} ms"
    if ratio["low"] == ratio["high"] == 1:
        return time
    return f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def _named(name: str, versions: dict[str, str]) -> str:
    """A contender with its version, where a distribution has its name."""
    version = versions.get(name.lower().split(",")[0].replace("transformerlens", "transformer-lens"))
    return f"{name} {version}" if version and version != "absent" else name


def _left_out(measured: dict[str, Any]) -> str:
    reasons = {row["name"]: row["reason"] for table in measured["tables"] for row in table["rows"] if "reason" in row}
    return "\n".join(f"Not timed: {name} ({reason})." for name, reason in reasons.items())


def _small_costs(measured: dict[str, Any]) -> str:
    rows = {name: row["median"] for name, row in measured["identities"]["rows"].items()}
    number = measured["identities"]["modules"]
    bare, alone = rows["bare call"], rows["replay, output only"]
    said = (
        f"On {number} modules that do nothing, a replay adds {alone - bare:.0f} µs by itself and "
        f"{(rows['replay, 48 reads'] - alone) / number:.1f} µs for each value that is read; a raw hook "
        f"takes {(rows['48 raw hooks'] - bare) / number:.1f} µs."
    )
    if "nnsight, empty" in rows:
        empty = rows["nnsight, empty"]
        said += f" nnsight: {empty - bare:.0f} µs and {(rows['nnsight, 48 reads'] - empty) / number:.1f} µs."
    for each in measured["plain"]:
        ratio = each["rows"]["interpose, with-block"]["ratio"]
        said += (
            f" A plain call of a network that interpose has wrapped and run takes {ratio['median']:.2f} "
            f"[{ratio['low']:.2f}, {ratio['high']:.2f}] of the time of one that it has never seen."
        )
    missed = [aim for aim in measured["aims"] if not aim["holds"]]
    failed = "; ".join(f"{aim['aim']}: {aim['found']:.2f}, at most {aim['limit']:.2f}" for aim in missed)
    return f"{said} Of {len(measured['aims'])} aims {len(measured['aims']) - len(missed)} are met" + (
        f". Not met: {failed}." if missed else "."
    )


def _made(measured: dict[str, Any]) -> str:
    versions, when = measured["versions"], datetime.fromisoformat(measured["created"])
    return (
        f"Median CPU milliseconds of a call for raw hooks; for the others the median of the ratios to raw hooks in "
        f"{measured['pairs']} rounds, with its 95 % bootstrap interval. {measured['machine']}, {measured['threads']} "
        f"thread, torch {versions['torch']}, transformers {versions['transformers']}; {when:%Y-%m-%d}."
    )


def speeds(measured: dict[str, Any], cuda: dict[str, Any] | None = None) -> str:
    """What the README says of how fast experiments are, as Markdown.

    Args:
        measured: what `benchmarks/speed.py` wrote.
        cuda: what it wrote on a GPU, or None.
    """
    there = {row["name"]: row for row in cuda["rows"]} if cuda else {}
    head = ["work", "against", "interpose", "fastest of the others", "times as fast", "aim", "of the limit"]
    rows = [_speed(row) for row in measured["rows"]]
    if cuda:
        head += ["on a GPU", "aim"]
        rows = [
            [*cells, *_brief(there.get(row["name"], {}))] for cells, row in zip(rows, measured["rows"], strict=True)
        ]
    parts = [_table(head, rows), *(_missed(each) for each in (measured, cuda) if each), _untimed(measured)]
    parts += [_measured_on(each) for each in (measured, cuda) if each]
    return "\n\n".join(part for part in parts if part)


def _speed(row: dict[str, Any]) -> list[str]:
    work = [row["work"], row["against"]]
    if "ratio" not in row:
        return [*work, "", "", row.get("absent") or row.get("wrong", ""), *_aim(row), ""]
    others = {other["name"]: other["seconds"]["median"] for other in row.get("others", []) if "seconds" in other}
    seconds = [f"{row['ours']['seconds']['median']:.3g} s", ""]
    if row.get("fastest") in others:
        seconds[1] = f"{row['fastest']}, {others[row['fastest']]:.3g} s"
    limit = f"{100 * row['limit']['share']:.0f} %" if "limit" in row else ""
    limit += " (missed)" if limit and not row["limit"]["holds"] else ""
    return [*work, *seconds, *_brief(row), limit]


def _brief(row: dict[str, Any]) -> list[str]:
    if "ratio" not in row:
        return ["", *_aim(row)]
    ratio = row["ratio"]
    return [f"{ratio['median']:.1f} [{ratio['low']:.1f}, {ratio['high']:.1f}]", *_aim(row)]


def _aim(row: dict[str, Any]) -> list[str]:
    missed = " (missed)" if row.get("holds") is False else ""
    return [f"{row['aim']:g}{missed}" if row.get("aim") is not None else ""]


def _missed(measured: dict[str, Any]) -> str:
    """What takes the time where an aim is missed, and what rows say of themselves."""
    said = [f"{row['work']}: {row['note']}" for row in measured["rows"] if "note" in row]
    for row in measured["rows"]:
        if row.get("holds") is False:
            most = ", ".join(f"`{part['name']}` {100 * part['share']:.0f} %" for part in row.get("profile", [])[:4])
            said.append(
                f"Missed on {measured['device']}: {row['name']}, {row['ratio']['median']:.1f}, at least {row['aim']:g}."
                + (f" Its time goes to {most}." if most else "")
            )
    return "\n".join(said)


def _untimed(measured: dict[str, Any]) -> str:
    others = [(row, other) for row in measured["rows"] for other in row.get("others", []) if "reason" in other]
    return "\n".join(f"Not timed: {other['name']}, {row['name']} ({other['reason']})." for row, other in others)


def _measured_on(measured: dict[str, Any]) -> str:
    versions, when = measured["versions"], datetime.fromisoformat(measured["created"])
    names = [f"{name} {versions[name]}" for name in versions if name not in ("python", "interpose", "numpy")]
    return (
        f"{measured['model']}, {measured['dtype']}; {measured['machine']}, {measured['threads']} threads; "
        f"{', '.join(names)}; {when:%Y-%m-%d}."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
