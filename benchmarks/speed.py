"""How fast whole experiments are: interpose beside raw hooks and other libraries, in wall time.

    python benchmarks/speed.py                          everything: benchmarks/results/speed.json, about 12 minutes
    python benchmarks/speed.py --device cuda            the same on a GPU: benchmarks/results/speed-cuda.json
    python benchmarks/speed.py --only stream,heads      some of it; nothing is written without --out
    python benchmarks/speed.py --quick --out q.json     a tiny random model, no other library: to see that it runs

`make bench` makes an environment with the other libraries and runs the first. Everyone is given the same weights,
tokens, number type and threads, under no_grad. Who does not give what interpose gives, up to 0.001 of a logit
difference, is not timed. In each round everyone is timed once, in an order drawn anew: interpose does the whole work;
who patches once a forward does some units, drawn anew, and the time of all is worked out from them. docs/speed.md says
more.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")  # the bars of others would be drawn between our lines

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from limits import Rates, rates
from machine import processor, versions
from materials import tiny
from speed_rows import JOBS, TEXTS, attribution
from speed_table import shown
from sweep_peers import PEERS

import interpose as ip

RESULTS = Path(__file__).parent / "results"
MODEL = "smollm2-135m-instruct"
LIMIT = 0.6
"""The share of the measured matrix rate that a sweep is meant to reach."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write.

    Args:
        arguments: the options.

    Returns:
        the exit code: 0 done, whether or not every aim is met; 1 where interpose differs from raw hooks.
    """
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        measured = _measured(options)
    print(shown(measured))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"\nwrote {options.out}")
    return int(any("wrong" in row for row in measured["rows"]))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="speed.py", description=__doc__, formatter_class=form)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where the model is")
    parser.add_argument("--only", default=",".join(JOBS), help=f"of {', '.join(JOBS)}; commas between")
    parser.add_argument("--rounds", type=int, help="rounds of every job (default: its own, 3 to 7)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of prompts, draws, orders, resamples (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="the JSON file (default benchmarks/results/speed[-cuda].json)")
    parser.add_argument("--no-peers", action="store_true", help="leave the other libraries out")
    parser.add_argument("--quick", action="store_true", help="a tiny random model, 2 rounds, no other library")
    options = parser.parse_args(arguments)
    options.given = list(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here")
    if options.rounds is not None and options.rounds < 2:
        parser.error(f"--rounds {options.rounds}: an interval needs at least 2 rounds")
    options.only = options.only.split(",")
    for name in options.only:
        if name not in JOBS:
            parser.error(f"--only {name}: there are {', '.join(JOBS)}")
    if options.quick:
        options.rounds, options.no_peers = options.rounds or 2, True
    elif options.out is None and options.only == list(JOBS):
        options.out = RESULTS / ("speed-cuda.json" if options.device == "cuda" else "speed.json")
    return options


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is written."""
    started = time.perf_counter()
    model = tiny(options.seed, options.device) if options.quick else ip.load(MODEL, device=options.device)
    count, seconds = ((14,), 0.02) if options.quick else ((14, 105, 420, 3150), 0.2)
    found = [rates(model.network, count, seconds)]
    rows: list[dict[str, Any]] = []
    for name in options.only:
        began = time.perf_counter()
        rows += JOBS[name](model, options)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    found.append(rates(model.network, count, seconds))
    best = max(each.best for each in found)
    for row in rows:
        _add_limit(row, best)
    if not options.quick:
        rows.append(attribution(RESULTS, options.device))
    return {
        "schema_version": 1,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(["benchmarks/speed.py", *options.given]),
        "machine": _machine(options.device),
        "device": options.device,
        "threads": options.threads,
        "model": model.info.name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "seed": options.seed,
        "versions": versions([] if options.no_peers else [of for _, of in PEERS.values()]),
        "seconds": time.perf_counter() - started,
        "rates": {"unit": "floating-point operations a second", "best": best, "measured": [_rates(r) for r in found]},
        "rows": sorted(rows, key=lambda row: list(TEXTS).index(row["name"])),
    }


def _machine(device: str) -> str:
    name = f"{processor()}, {os.cpu_count()} cores"
    return f"{torch.cuda.get_device_name()}; {name}" if device == "cuda" else name


def _rates(found: Rates) -> dict[str, Any]:
    return {"rows": list(found.layer), "layer": list(found.layer.values()), "shapes": found.shapes}


def _add_limit(row: dict[str, Any], best: float) -> None:
    """How long the useful work would take at the measured rate, and what share of interpose's time that is."""
    if "useful" in row and "ours" in row:
        least = row["useful"]["flops"] / best
        share = least / row["ours"]["seconds"]["median"]
        row["limit"] = {"rate": best, "seconds": least, "share": share, "aim": LIMIT, "holds": share >= LIMIT}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
