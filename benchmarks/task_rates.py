"""What a model can do: how often it gets each task right, on every split, with intervals.

    python benchmarks/task_rates.py                 every task: benchmarks/results/tasks.json, table in docs/tasks.md
    python benchmarks/task_rates.py --tasks ioi arithmetic  these only; the others' rows stay as they were
    python benchmarks/task_rates.py --quick --out q.json    4 pairs a split, no table: to see that it runs

Each task is measured as it is, and in the settings listed below. Where a counterfactual changes the answers that are
compared, it has rows of its own. A task whose words the model's tokenizer does not suit has the reason instead.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from machine import processor, versions

import interpose as ip
from interpose import discovery
from interpose.errors import TaskError
from interpose.tasks.base import SPLITS, Pairs, Rate, Task
from interpose.trace import Model

OUT = Path(__file__).parent / "results" / "tasks.json"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "tasks.md"
TABLE = re.compile(r"(?<=<!-- rates -->\n).*?(?=<!-- end of rates -->)", re.DOTALL)
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "arithmetic": [{"operation": "subtraction"}],
    "subject-verb": [{"attractors": ("differs",)}],
}
"""What is measured besides each task as it is."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write.

    Args:
        arguments: the options.

    Returns:
        the exit code: 0 done.
    """
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    rows = _kept(options)
    model = ip.load(options.model)
    for name in options.tasks:
        rows[name] = list(_rows(name, model, options))
        _write(rows, model, options)
        print(f"measured {name}", file=sys.stderr, flush=True)
    print(f"{table(json.loads(options.out.read_text(encoding='utf-8')))}\nwrote {options.out}")
    return 0


def _write(rows: dict[str, Any], model: Model, options: argparse.Namespace) -> None:
    """Write what there is so far, so that a run that is cut off has not measured for nothing."""
    measured = {
        "schema_version": 1,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(["benchmarks/task_rates.py", *options.given]),
        "machine": processor(),
        "versions": versions([]),
        "model": options.model,
        "weights": model.weights_hash,
        "n": options.n,
        "seed": options.seed,
        "tasks": dict(sorted(rows.items())),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.out == OUT:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(TABLE.sub(lambda _: table(measured), text), encoding="utf-8")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="task_rates.py", description=__doc__, formatter_class=form)
    known = [entry.name for entry in discovery.entries("interpose.tasks")]
    parser.add_argument("--tasks", nargs="+", choices=known, default=known, help="(default: all)")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="(default %(default)s)")
    parser.add_argument("--n", type=int, default=200, help="pairs a split (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="the file (default benchmarks/results/tasks.json)")
    parser.add_argument("--quick", action="store_true", help="4 pairs a split")
    options = parser.parse_args(arguments)
    options.given = list(arguments)
    if options.quick:
        options.n = 4
    return options


def _kept(options: argparse.Namespace) -> dict[str, Any]:
    """The rows of tasks that are not measured now, if they were measured alike."""
    if not options.out.exists():
        return {}
    before = json.loads(options.out.read_text(encoding="utf-8"))
    alike = all(before[name] == getattr(options, name) for name in ("model", "n", "seed"))
    known = {entry.name for entry in discovery.entries("interpose.tasks")}
    return {name: rows for name, rows in before["tasks"].items() if alike and name in known}


def _rows(name: str, model: Model, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for settings in ({}, *SETTINGS.get(name, [])):
        task: Task = discovery.load("interpose.tasks", name)(**settings)
        seen: list[list[int]] = []
        for kind in task.counterfactuals:
            row = {"settings": settings, "counterfactual": kind}
            try:
                drawn = {split: _draw(task, model, split, kind, options) for split in SPLITS}
            except TaskError as error:
                yield row | {"reason": str(error).split(". ")[0]}
                return
            compared = torch.cat([torch.stack([pairs.answers, pairs.wrong]).flatten() for pairs in drawn.values()])
            if compared.tolist() not in seen:
                seen.append(compared.tolist())
                yield row | {"splits": {split: _measured(task, model, pairs) for split, pairs in drawn.items()}}


def _draw(task: Task, model: Model, split: str, kind: str, options: argparse.Namespace) -> Pairs:
    return task.pairs(model, n=options.n, seed=options.seed, split=split, counterfactual=kind).to(model.device)


def _measured(task: Task, model: Model, pairs: Pairs) -> dict[str, Any]:
    with torch.no_grad():
        found = task.accuracy(model, pairs)
    return {"prefers": _rate(found.prefers), "first": _rate(found.first), "n": found.n}


def _rate(rate: Rate) -> dict[str, float]:
    low, high = rate.interval
    return {"count": rate.count, "rate": rate.value, "low": low, "high": high}


def table(measured: dict[str, Any]) -> str:
    """The table of the page: a row for each task, setting and way to compare."""
    lines = [
        f"`{measured['model']}`, {measured['n']} prompts a split, seed {measured['seed']}. In brackets Wilson's 95 % "
        "interval. *Prefers*: the answer has a higher logit than the wrong one, by chance 50 %. *First*: the answer "
        "has the highest logit of the whole vocabulary.",
        "",
        "| task | compared as in | prefers, train | prefers, validation | prefers, test | first, test |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in measured["tasks"].items():
        for row in rows:
            said = ", ".join(_setting(value) for value in row["settings"].values())
            start = f"| `{name}`{', ' + said if said else ''} | `{row['counterfactual']}` |"
            if "reason" in row:
                lines.append(f"{start} not measured: {row['reason']} | | | |")
                continue
            splits = row["splits"]
            cells = [_cell(splits[split]["prefers"]) + _chance(splits[split]["prefers"]) for split in SPLITS]
            cells.append(_cell(splits["test"]["first"]))
            lines.append(f"{start} {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _setting(value: Any) -> str:
    return " and ".join(value) if isinstance(value, list | tuple) else str(value)


def _cell(rate: dict[str, float]) -> str:
    return f"{100 * rate['rate']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


def _chance(rate: dict[str, float]) -> str:
    return " no better than chance" if rate["low"] <= 0.5 else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
