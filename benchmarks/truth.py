"""How well each method finds the circuits that are known: AUROC of its edge scores, on every model of the zoo with one.

    python benchmarks/truth.py                      benchmarks/results/truth.json
    python benchmarks/truth.py --methods eap --models sorting-by-hand --pairs 4 --out q.json

Every method that can score edges is asked, with its own default settings, on pairs of the model's own task.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from machine import processor, versions

import interpose as ip
from interpose import discovery
from interpose.benchmark.truth import edge_auroc
from interpose.errors import InterposeError
from interpose.loading.cards import Card, cards

OUT = Path(__file__).parent / "results" / "truth.json"


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write.

    Args:
        arguments: the options.

    Returns:
        the exit code: 0 done.
    """
    known = {name: card for name, card in cards().items() if card.truth is not None}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--methods", nargs="*", default=[entry.name for entry in discovery.entries("interpose.methods")]
    )
    parser.add_argument("--models", nargs="*", default=list(known), choices=list(known))
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    found: dict[str, dict[str, Any]] = {}
    for name in options.models:
        for method, cell in _cells(known[name], options):
            found.setdefault(method, {})[name] = cell
            print(f"{name}  {method}  {cell['auroc']:.3f}  {cell['seconds']:.1f} s", flush=True)
    result = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": processor(),
        "threads": options.threads,
        "versions": versions([]),
        "pairs": options.pairs,
        "seed": options.seed,
        "models": options.models,
        "methods": {method: found[method] for method in sorted(found)},
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def _cells(card: Card, options: argparse.Namespace) -> Any:
    model, task = ip.load(card.name), discovery.load("interpose.tasks", card.task)()
    pairs = task.pairs(model, n=options.pairs, seed=options.seed)
    assert card.truth is not None
    for name in options.methods:
        method = discovery.load("interpose.methods", name)
        begun = time.perf_counter()
        try:
            scores = method().score(model, pairs, ip.mediators.Edges())
        except (InterposeError, TypeError) as error:  # it scores other units, or needs settings
            print(f"{card.name}  {name}  not asked: {str(error).splitlines()[0]}", flush=True)
            continue
        cell = {"auroc": edge_auroc(scores, card.truth.edges), "seconds": time.perf_counter() - begun}
        yield name, cell


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
