"""Edge attribution patching over all edges: interpose beside TransformerLens, in CPU time and in memory.

    python benchmarks/attribution.py                    GPT-2-small shape, 32 pairs: benchmarks/results/attribution.json
    python benchmarks/attribution.py --rounds 9         more rounds, narrower intervals
    python benchmarks/attribution.py --quick --out q.json     a tiny network, no other library: to see that it runs

Every contender scores all edges of one network with random weights, on the same pairs; the scores are compared before
anything is timed. In each round every contender is timed once, in an order drawn anew, and compared with interpose in
the same round. Memory is the most that a process of its own holds during one call, beyond what it held before it. The
call that TransformerLens documents goes through the pairs one by one, so it is timed on a few and counted for all.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
from contenders import Setting
from machine import processor, versions
from scorers import BUILDERS, OURS, PEERS, SETTINGS, STOCK, Contender, pairs_of
from timing import Rounds, estimate

import interpose as ip
from interpose.mediators import Edges
from interpose.tasks.base import Pairs

OUT = Path(__file__).parent / "results" / "attribution.json"
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
    setting = replace(SETTINGS[options.model], seed=options.seed)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        if options.memory:
            print(json.dumps(_peak(options.memory, setting)))
            return 0
        measured = _measured(options, setting)
    print(_shown(measured))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nwrote {options.out}")
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="attribution.py", description=__doc__, formatter_class=form)
    parser.add_argument("--model", default="gpt2-small", choices=list(SETTINGS), help="(default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, prompts, orders (default %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="the file (default benchmarks/results/attribution.json)")
    parser.add_argument("--no-peers", action="store_true", help="leave the other library out")
    parser.add_argument("--quick", action="store_true", help="2 rounds, the tiny network, no other library")
    parser.add_argument("--memory", choices=list(BUILDERS), help="only print the peak memory of one contender, in MB")
    options = parser.parse_args(arguments)
    options.given = list(arguments)
    if options.quick:
        options.rounds, options.model, options.no_peers = 2, "tiny", True
    if options.rounds < 2:
        parser.error(f"--rounds {options.rounds}: an interval needs at least 2 rounds")
    return options


def _measured(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """Everything that is written."""
    pairs = pairs_of(setting)
    made, reasons = _made(options, setting, pairs)
    calls = {name: _timed(each, pairs) for name, each in made.items()}
    samples = Rounds(options.rounds, 1, options.seed).time("edge attribution", calls)
    for name, each in made.items():
        share = len(pairs) / (each.pairs or len(pairs))
        samples[name] = [share * seconds for seconds in samples[name]]
    rows = []
    for name, each in made.items():
        ratios = [theirs / ours for theirs, ours in zip(samples[name], samples[OURS], strict=True)]
        memory = _in_own_process(name, options)
        rows.append(
            {
                "name": name,
                "seconds": median(samples[name]),
                "ratio": asdict(estimate(ratios, options.seed)),
                "peak_memory_mb": memory,
                "pairs_timed": each.pairs or len(pairs),
                "note": each.note,
            }
        )
    rows += [{"name": name, "reason": reason} for name, reason in reasons.items()]
    return {
        "schema_version": 1,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(["benchmarks/attribution.py", *options.given]),
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
        "threads": options.threads,
        "rounds": options.rounds,
        "seed": options.seed,
        "versions": versions(["transformer-lens"]),
        "model": {name: getattr(setting, name) for name in ("name", "layers", "width", "heads", "vocab")},
        "pairs": {"number": setting.batch, "positions": setting.length},
        "edges": Edges().graph(ip.wrap(setting.network)).n_edges,
        "rows": rows,
        "aims": _aims({row["name"]: row for row in rows if "ratio" in row}),
    }


def _made(options: argparse.Namespace, setting: Setting, pairs: Pairs) -> tuple[dict[str, Contender], dict[str, str]]:
    """The contenders whose scores agree with interpose's, and why others are not timed."""
    made: dict[str, Contender] = {}
    reasons: dict[str, str] = {}
    for name, build in BUILDERS.items():
        if options.no_peers and name in PEERS:
            continue
        try:
            each = build(setting)
            part = pairs[: each.pairs] if each.pairs else pairs
            found = each.score(part)
            if name not in (OURS, STOCK):  # the stock passes score nothing
                wanted = made[OURS].score(part)
                difference = float((found - wanted).abs().max() / wanted.abs().max())
                if difference > TOLERANCE:
                    raise ValueError(f"gives other scores: they differ by {difference:.2g} of the largest")
        except Exception as error:
            if name not in PEERS:
                raise
            reasons[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
            continue
        made[name] = each
    return made, reasons


def _timed(each: Contender, pairs: Pairs) -> Callable[[], Any]:
    part = pairs[: each.pairs] if each.pairs else pairs
    return lambda: each.score(part)


def _in_own_process(name: str, options: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--memory", name, "--model", options.model]
    command += ["--threads", str(options.threads), "--seed", str(options.seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _peak(name: str, setting: Setting) -> float:
    """The most that this process holds during a call, in MB beyond what it held before."""
    each, pairs = BUILDERS[name](setting), pairs_of(setting)
    each.score(pairs[:1])  # what is made once, at first use, is no part of it
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the highest mark so far
    before = _status("VmRSS")
    each.score(pairs[: each.pairs] if each.pairs else pairs)
    return (_status("VmHWM") - before) / 1e6


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * float(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def _aims(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    memory = {name: row["peak_memory_mb"] for name, row in rows.items()}
    beside_stock = memory[OURS] / memory[STOCK]
    aims = [("memory beside the stock network's forward and backward", "at most", 1.5, beside_stock)]
    for name, ours in PEERS.items():
        if name in rows:
            aims.append((f"time of {name} beside {OURS}", "at least", 2.0, rows[name]["ratio"]["median"]))
            aims.append((f"memory of {ours} beside {name}", "at most", 0.5, memory[ours] / memory[name]))
    return [
        {
            "aim": text,
            "kind": kind,
            "limit": limit,
            "found": found,
            "holds": found <= limit if kind == "at most" else found >= limit,
        }
        for text, kind, limit, found in aims
    ]


def _shown(measured: dict[str, Any]) -> str:
    """Everything as text."""
    model, pairs = measured["model"], measured["pairs"]
    lines = [
        f"{model['name']} ({model['layers']} layers, width {model['width']}), {pairs['number']} pairs of "
        f"{pairs['positions']} positions, {measured['edges']:,} edges: CPU seconds, ratio to interpose [95 %], peak MB"
    ]
    for row in measured["rows"]:
        if "reason" in row:
            lines.append(f"  {row['name']:48} {row['reason']}")
            continue
        ratio = row["ratio"]
        lines.append(
            f"  {row['name']:48} {row['seconds']:8.2f}   {ratio['median']:6.2f} [{ratio['low']:.2f}, "
            f"{ratio['high']:.2f}] {row['peak_memory_mb']:8.0f}  {row['note']}"
        )
    for aim in measured["aims"]:
        verdict = "pass" if aim["holds"] else "FAIL"
        lines.append(f"{verdict}  {aim['aim']}: {aim['found']:.2f} ({aim['kind']} {aim['limit']})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
