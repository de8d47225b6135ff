"""How the time of a stream sweep grows with layers and with the length of the prompt, for interpose and raw hooks.

    python benchmarks/growth.py                     benchmarks/results/growth.json, about four minutes
    python benchmarks/growth.py --device cuda       the same on a GPU: benchmarks/results/growth-cuda.json
    python benchmarks/growth.py --quick --out g.json    a tiny random model, to see that it runs

`make bench` runs the first; `.venv/bin/python scripts/pictures.py --growth` draws it. Layers: the first layers of the
model, every position of a prompt of 14 tokens. Length: all layers, the last 8 positions. Raw hooks patch once a
forward; they do a sample of the patches, which is also what interpose's result is compared with.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import materials
import torch
from alternate import Effort, measure_sweep
from machine import processor, versions
from sweeps import HOOKS, Sweep
from timing import estimate

import interpose as ip

RESULTS = Path(__file__).parent / "results"
MODEL = "smollm2-135m-instruct"
STREAMS = ip.mediators.Streams()
LAYERS, LENGTHS, LAST = (4, 8, 15, 22, 30), (64, 128, 256, 512, 1024), 8


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write.

    Args:
        arguments: the options.

    Returns:
        the exit code: 0 done, 1 where interpose differs from raw hooks.
    """
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    model = materials.tiny(options.seed) if options.quick else ip.load(MODEL, device=options.device)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        plots = {
            "layers": [_point(size, _deep(model, size, options), options) for size in options.layers],
            "length": [_point(size, _wide(model, size, options), options) for size in options.lengths],
        }
    measured = {
        "schema_version": 1,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(["benchmarks/growth.py", *arguments]),
        "machine": torch.cuda.get_device_name() if options.device == "cuda" else processor(),
        "device": options.device,
        "threads": options.threads,
        "model": model.info.name,
        "seed": options.seed,
        "versions": versions([]),
        "plots": plots,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {options.out}")
    return int(any("reason" in point for plot in plots.values() for point in plot))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="growth.py", description=__doc__, formatter_class=form)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where the model is")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of every point (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of prompts, draws and orders (default %(default)s)")
    parser.add_argument("--out", type=Path, help="the JSON file (default benchmarks/results/growth[-cuda].json)")
    parser.add_argument("--quick", action="store_true", help="a tiny random model, two points each")
    options = parser.parse_args(arguments)
    options.out = options.out or RESULTS / ("growth-cuda.json" if options.device == "cuda" else "growth.json")
    options.layers, options.lengths = ((1, 3), (8, 16)) if options.quick else (LAYERS, LENGTHS)
    return options


def _deep(model: ip.Model, layers: int, options: argparse.Namespace) -> Sweep:
    less = materials.shallow(model, layers)
    pairs = (
        materials.random_pairs(1, 4, 1, model.sizes().vocab, options.seed)
        if options.quick
        else materials.pair(model, materials.EARLY)
    )
    return Sweep(f"{layers} layers", less, pairs, ip.mediators.Positions(of=STREAMS))


def _wide(model: ip.Model, length: int, options: argparse.Namespace) -> Sweep:
    pairs = (
        materials.random_pairs(1, length, 0, model.sizes().vocab, options.seed)
        if options.quick
        else materials.long_pair(model, length, options.seed)
    )
    return Sweep(
        f"{length} tokens", model, pairs, ip.mediators.Positions(of=STREAMS, last=2 if options.quick else LAST)
    )


def _point(size: int, sweep: Sweep, options: argparse.Namespace) -> dict[str, Any]:
    """One size: seconds a patch of interpose and of raw hooks."""
    measured = measure_sweep(sweep, HOOKS, Effort(options.rounds, units=4, seed=options.seed), sweep.ours)
    made: dict[str, Any] = {"size": size, "patches": len(sweep.units)}
    if measured.reasons:
        return made | {"reason": "; ".join(measured.reasons.values())}
    for name, seconds in measured.seconds.items():
        made[name] = asdict(estimate([each / len(sweep.units) for each in seconds], options.seed))
    found = (f"{name} {1e3 * made[name]['median']:.2f} ms a patch" for name in measured.seconds)
    print(", ".join([sweep.name, *found]), flush=True)
    return made | {"largest_difference": max(measured.largest_difference.values())}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
