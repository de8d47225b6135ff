"""What the plain path costs: raw hooks, interpose and other libraries side by side, in CPU time.

    python benchmarks/engine.py                         both models, 40 rounds: benchmarks/results/engine.json
    python benchmarks/engine.py --models tiny           the small model only: under a minute
    python benchmarks/engine.py --pairs 100             more rounds, narrower intervals
    python benchmarks/engine.py --quick --out q.json    few rounds, no other library: to see that it runs

`make bench` makes an environment with the other libraries and runs the first. In each round every contender is timed
once, in an order drawn anew, and compared with the raw hooks of the same round. What a contender gives is compared with
what the raw hooks give before anything is timed. Close other programs: CPU time also suffers from a full cache.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import json
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import identities
import torch
from contenders import OURS, SETTINGS, Contender, Setting
from machine import processor, versions
from peers import PEERS
from timing import Rounds, estimate

OUT = Path(__file__).parent / "results" / "engine.json"
RAW, RAW_IDS, BLOCK, REPLAY = OURS
TOLERANCE = 1e-4


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write.

    Args:
        arguments: the options.

    Returns:
        the exit code: 0 done, whether or not every aim is met.
    """
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        measured = _measured(options)
    print(_shown(measured))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nwrote {options.out}")
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="engine.py", description=__doc__, formatter_class=form)
    parser.add_argument("--models", default=",".join(SETTINGS), help=f"of {', '.join(SETTINGS)}; commas between")
    parser.add_argument("--pairs", type=int, default=40, help="rounds (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, orders and resamples (default %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="the JSON file (default benchmarks/results/engine.json)")
    parser.add_argument("--no-peers", action="store_true", help="leave the other libraries out")
    parser.add_argument("--quick", action="store_true", help="3 rounds, the tiny model, no other library")
    options = parser.parse_args(arguments)
    options.given = list(arguments)
    if options.quick:
        options.pairs, options.models, options.no_peers = 3, "tiny", True
    if options.pairs < 2:
        parser.error(f"--pairs {options.pairs}: an interval needs at least 2 rounds")
    options.models = options.models.split(",")
    for name in options.models:
        if name not in SETTINGS:
            parser.error(f"--models {name}: there are {', '.join(SETTINGS)}")
    return options


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is written."""
    tables, plain = [], []
    for name in options.models:
        setting = SETTINGS[name]
        made, missing = _made(setting, peers=not options.no_peers)
        rounds = Rounds(options.pairs, setting.calls, options.seed)
        tables += [_table(setting, task, made, missing, rounds) for task in ("patch", "cache")]
        if setting.calls > 1:  # on a large network a plain call tells nothing that its noise does not hide
            plain.append(_plain(setting, made, rounds))
    micro = Rounds(options.pairs, calls=5 if options.quick else 50, seed=options.seed)
    samples = micro.time("48 identities", identities.calls(peers=not options.no_peers))
    found = {name: asdict(estimate([1e6 * each for each in times], options.seed)) for name, times in samples.items()}
    return {
        "schema_version": 1,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(["benchmarks/engine.py", *options.given]),
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
        "threads": options.threads,
        "pairs": options.pairs,
        "seed": options.seed,
        "versions": versions([] if options.no_peers else [of for _, of in PEERS.values() if of]),
        "tables": tables,
        "plain": plain,
        "identities": {"unit": "us", "modules": identities.MODULES, "rows": found},
        "aims": _aims(tables, plain, found),
    }


def _made(setting: Setting, peers: bool) -> tuple[dict[str, Contender], dict[str, str]]:
    """The contenders that can be made, and why others cannot."""
    builders: dict[str, Callable[[Setting], Contender]] = dict(OURS)
    if peers:
        builders |= {name: builder for name, (builder, _) in PEERS.items()}
    made, missing = {}, {}
    for name, builder in builders.items():
        try:
            made[name] = builder(setting)
        except Exception as error:
            if name in OURS:
                raise
            missing[name] = _reason(error)
    return made, missing


def _table(
    setting: Setting, task: str, made: dict[str, Contender], missing: dict[str, str], rounds: Rounds
) -> dict[str, Any]:
    """One model, one task: every contender beside raw hooks."""
    # The values are copied: some libraries hand out memory that the network goes on to change.
    wanted = [value.clone() for value in made[RAW].tasks[task]()]
    agree, reasons = {}, dict(missing)
    for name, contender in made.items():
        try:
            difference = _difference(contender.tasks[task](), wanted)
        except Exception as error:
            reasons[name] = _reason(error)
            continue
        if difference > TOLERANCE:
            reasons[name] = f"gives another result: differs by {difference:.2g}"
        else:
            agree[name] = difference
    samples = rounds.time(f"{setting.name}, {task}", {name: made[name].tasks[task] for name in agree})
    rows = [_row(name, samples, agree[name], made[name].note, rounds.seed) for name in agree]
    rows += [{"name": name, "reason": reason} for name, reason in reasons.items()]
    return {"model": _described(setting), "task": task, "calls_per_sample": rounds.calls, "rows": rows}


def _row(name: str, samples: dict[str, list[float]], difference: float, note: str, seed: int) -> dict[str, Any]:
    ratios, written = (
        [one / raw for one, raw in zip(samples[name], samples[base], strict=True)] for base in (RAW, RAW_IDS)
    )
    return {
        "name": name,
        "milliseconds": 1e3 * median(samples[name]),
        "ratio": asdict(estimate(ratios, seed)),
        "ratio_to_ids_only": asdict(estimate(written, seed)),
        "largest_difference": difference,
        "note": note,
    }


def _plain(setting: Setting, made: dict[str, Contender], rounds: Rounds) -> dict[str, Any]:
    """A plain call of each network as it now is, beside one that nothing has touched."""
    untouched = setting.twin()
    calls = {"untouched": lambda: untouched(**setting.given)}
    calls |= {name: contender.plain for name, contender in made.items() if contender.plain is not None}
    samples = rounds.time(f"{setting.name}, plain call", calls)
    found = {}
    for name, times in samples.items():
        ratios = [one / other for one, other in zip(times, samples["untouched"], strict=True)]
        found[name] = {"milliseconds": 1e3 * median(times), "ratio": asdict(estimate(ratios, rounds.seed))}
    return {"model": setting.name, "rows": found}


def _difference(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    if [value.shape for value in found] != [value.shape for value in wanted]:
        raise ValueError(f"gives shapes {[tuple(value.shape) for value in found]}")
    return max(float((one - other).abs().max()) for one, other in zip(found, wanted, strict=True))


def _aims(
    tables: list[dict[str, Any]], plain: list[dict[str, Any]], micro: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
    """What interpose is meant to cost at most, and what it does cost."""
    aims = []
    for table in tables:
        ratio = {row["name"]: row["ratio"] for row in table["rows"] if "ratio" in row}
        written = {row["name"]: row["ratio_to_ids_only"] for row in table["rows"] if "ratio" in row}
        model, task = table["model"]["name"], table["task"]
        if model == "tiny":
            aims.append((f"{model}, {task}: replay, ratio to raw hooks", 1.10, ratio[REPLAY]["median"]))
            # A user gives both the token ids and nothing else.
            aims.append((f"{model}, {task}: with-block, ratio to raw hooks on ids", 1.30, written[BLOCK]["median"]))
        else:
            aims.append((f"{model}, {task}: replay, upper bound of the ratio", 1.05, ratio[REPLAY]["high"]))
    for each in plain:
        aims.append(
            (f"{each['model']}: plain call of a wrapped model, ratio", 1.02, each["rows"][BLOCK]["ratio"]["median"])
        )
    bare = micro["bare call"]["median"]
    empty = micro["replay, output only"]["median"]
    read = (micro["replay, 48 reads"]["median"] - empty) / identities.MODULES
    aims.append(("48 identities: what a replay adds by itself, in microseconds", 60.0, empty - bare))
    # Beside the replay that reads nothing, as a raw hook's price is beside the bare call.
    aims.append(("48 identities: what a read adds, in microseconds", 2.0, read))
    return [{"aim": text, "limit": limit, "found": value, "holds": value <= limit} for text, limit, value in aims]


def _described(setting: Setting) -> dict[str, Any]:
    return {
        "name": setting.name,
        "layers": setting.layers,
        "width": setting.width,
        "vocab": setting.vocab,
        "batch": setting.batch,
        "length": setting.length,
    }


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _shown(measured: dict[str, Any]) -> str:
    """Everything as text."""
    lines = []
    for table in measured["tables"]:
        model = table["model"]
        lines.append(
            f"\n{model['name']} ({model['layers']} layers, width {model['width']}, batch {model['batch']} x "
            f"{model['length']}), {table['task']}: CPU ms a call, ratio to raw hooks [95 %], to those given ids only"
        )
        lines += [_line(row) for row in table["rows"]]
    for each in measured["plain"]:
        lines.append(f"\n{each['model']}, a plain call of the network after all that: ratio to one never touched")
        lines += [_line({"name": name, **row}) for name, row in each["rows"].items()]
    lines.append("\n48 identities: CPU microseconds a call")
    lines += [f"  {name:24} {row['median']:8.1f}" for name, row in measured["identities"]["rows"].items()]
    lines.append("")
    for aim in measured["aims"]:
        verdict = "pass" if aim["holds"] else "FAIL"
        lines.append(f"{verdict}  {aim['aim']}: {aim['found']:.3f} (at most {aim['limit']:.3f})")
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    if "reason" in row:
        return f"  {row['name']:24} {row['reason']}"
    ratio, note = row["ratio"], f"  {row['note']}" if row.get("note") else ""
    ids_only = f"   {row['ratio_to_ids_only']['median']:.3f}" if "ratio_to_ids_only" in row else ""
    return (
        f"  {row['name']:24} {row['milliseconds']:9.3f}   {ratio['median']:.3f} "
        f"[{ratio['low']:.3f}, {ratio['high']:.3f}]{ids_only}{note}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
