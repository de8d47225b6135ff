"""The rows of `speed.py`: what is done, against whom, with which aim."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import materials
import torch
from alternate import OURS, Effort, Measured, clocked, measure_sweep, profiled, take_turns
from limits import useful
from one_by_one import one_by_one, together
from sweep_peers import PEERS
from sweeps import BATCHED, HOOKS, Sweep
from timing import estimate
from torch import Tensor

import interpose as ip
from interpose.benchmark.grid import SIZES, budgets
from interpose.search.selection import prune, top_n

STREAMS = ip.mediators.Streams()

TEXTS = {
    "stream": ("stream sweep, every layer and position, one IOI pair of 14 tokens", "one patch a forward"),
    "stream, batched": ("the same", "raw hooks, a forward a layer, batched over positions by hand"),
    "early": ("the same, prompts that differ from the second token on", "one patch a forward"),
    "early, batched": ("the same", "raw hooks, a forward a layer, batched over positions by hand"),
    "long": ("stream sweep, every layer, last 32 positions of 256 tokens", "one patch a forward"),
    "heads": ("every head, 16 IOI pairs", "one patch a forward"),
    "attribution": ("attribution of every edge, GPT-2-small shape, 32 examples", "TransformerLens"),
    "curve": ("faithfulness curve, ten sizes", "interpose, everything anew for each size"),
}
"""What each row is, and what it is compared with, in the order of the table."""

AIMS: dict[str, dict[str, float]] = {
    "stream": {"cpu": 12, "cuda": 20},
    "stream, batched": {"cpu": 3.5, "cuda": 4},
    "long": {"cpu": 25, "cuda": 25},
    "heads": {"cpu": 3, "cuda": 8},
    "attribution": {"cpu": 2, "cuda": 2},
    "curve": {"cpu": 2, "cuda": 2},
}
"""How many times as fast as the fastest of the others interpose is meant to be; rows without are shown only."""

MEMORY = 0.5
"""How much of the other's peak memory edge attribution may take."""


def _stream(corrupt: str, name: str, model: ip.Model, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A sweep over layers and positions of a short pair: two rows."""
    late = corrupt == materials.LATE
    if options.quick:
        pairs = materials.random_pairs(1, 8, 5 if late else 1, model.sizes().vocab, options.seed)
    else:
        pairs = materials.pair(model, corrupt)
    sweep = Sweep(name, model, pairs, ip.mediators.Positions(of=STREAMS))
    effort = Effort(options.rounds or (7 if late else 4), units=14, seed=options.seed)
    alone = {**HOOKS, **_peers(options)} if late else HOOKS
    measured = measure_sweep(sweep, {**alone, **BATCHED}, effort, sweep.ours)
    return [
        row(kind, sweep, measured, list(names), options)
        for kind, names in ((name, alone), (f"{name}, batched", BATCHED))
    ]


def _long(model: ip.Model, options: argparse.Namespace) -> list[dict[str, Any]]:
    if options.quick:
        pairs, last = materials.random_pairs(1, 24, 0, model.sizes().vocab, options.seed), 4
    else:
        pairs, last = materials.long_pair(model, 256, options.seed), 32
    sweep = Sweep("long", model, pairs, ip.mediators.Positions(of=STREAMS, last=last))
    return _alone(sweep, Effort(options.rounds or 4, units=5, seed=options.seed), options)


def _heads(model: ip.Model, options: argparse.Namespace) -> list[dict[str, Any]]:
    if options.quick:
        pairs = materials.random_pairs(3, 9, 2, model.sizes().vocab, options.seed)
    else:
        pairs = materials.even_pairs(model, 16, options.seed)
    sweep = Sweep("heads", model, pairs, ip.mediators.Heads())
    return _alone(sweep, Effort(options.rounds or 3, units=3, seed=options.seed), options)


def _alone(sweep: Sweep, effort: Effort, options: argparse.Namespace) -> list[dict[str, Any]]:
    builders = {**HOOKS, **_peers(options)}
    measured = measure_sweep(sweep, builders, effort, sweep.ours)
    return [row(sweep.name, sweep, measured, list(builders), options)]


def _peers(options: argparse.Namespace) -> dict[str, Any]:
    return {} if options.no_peers else {name: builder for name, (builder, _) in PEERS.items()}


def row(
    name: str, sweep: Sweep, measured: Measured, against: Sequence[str], options: argparse.Namespace
) -> dict[str, Any]:
    """A row about a sweep; see `compared`."""
    made = compared(name, measured, against, options.device, options.seed)
    size = {"units": len(sweep.units), "pairs": len(sweep.pairs), "tokens": sweep.length}
    return made | {"size": size, "useful": useful(sweep)}


def compared(name: str, measured: Measured, against: Sequence[str], device: str, seed: int) -> dict[str, Any]:
    """What is written of one piece of work and those it is compared with.

    Args:
        name: of the row.
        measured: what came of it.
        against: the names of those it is compared with.
        device: whose aim it has.
        seed: of the resamples.

    Returns:
        the row: `ours`; `others`, each with its time, its ratio to interpose and what it differs by, or with the reason
        why it was not timed; `fastest` of them, `ratio` to it, `aim` and `holds`. `wrong` says why there is none.
    """
    work, other = TEXTS[name]
    made: dict[str, Any] = {"name": name, "work": work, "against": other, "aim": AIMS.get(name, {}).get(device)}
    made["largest_value"], made["profile"] = measured.largest_value, measured.profile
    if OURS not in measured.seconds:
        return made | {"wrong": measured.reasons.get(OURS, "not timed")}
    seconds = measured.seconds
    made["ours"] = {
        "seconds": asdict(estimate(seconds[OURS], seed)),
        "rounds": len(seconds[OURS]),
        "largest_difference": measured.largest_difference.get(OURS, 0.0),
    }
    made["others"] = [_other(each, measured, seed) for each in against]
    timed = [each for each in made["others"] if "ratio" in each]
    if not timed:
        return made
    fastest = min(timed, key=lambda each: each["seconds"]["median"])
    made |= {"fastest": fastest["name"], "ratio": fastest["ratio"]}
    if made["aim"] is not None:
        made["holds"] = fastest["ratio"]["median"] >= made["aim"]
    return made


def _other(name: str, measured: Measured, seed: int) -> dict[str, Any]:
    if name not in measured.seconds:
        return {"name": name, "reason": measured.reasons.get(name, "not timed")}
    seconds = measured.seconds[name]
    ratios = [other / ours for other, ours in zip(seconds, measured.seconds[OURS], strict=True)]
    return {
        "name": name,
        "seconds": asdict(estimate(seconds, seed)),
        "ratio": asdict(estimate(ratios, seed)),
        "largest_difference": measured.largest_difference[name],
        "patches_timed": measured.done.get(name),
        "note": measured.notes.get(name, ""),
    }


def _curve(model: ip.Model, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Circuits of ten sizes, from the scores of EAP-IG on the same pairs."""
    if options.quick:
        pairs, sizes = materials.random_pairs(2, 6, 2, model.sizes().vocab, options.seed), SIZES[-3:]
    else:
        pairs, sizes = materials.even_pairs(model, 8, options.seed), SIZES
    edges = ip.mediators.Edges()
    graph = edges.graph(model)
    with torch.enable_grad():
        scores = ip.methods.EAPIG(steps=5).score(model, pairs, edges).values
    masks = torch.stack([prune(top_n(scores, count), graph) for count in budgets(graph.n_edges, sizes)])
    calls = {OURS: partial(together, model, pairs, edges, masks), ANEW: partial(one_by_one, model, pairs, edges, masks)}
    effort = Effort(options.rounds or 3, units=0, seed=options.seed)
    measured = measure_whole("curve", calls, effort, model.device.type == "cuda")
    made = compared("curve", measured, [ANEW], options.device, options.seed)
    return [made | {"size": {"circuits": len(masks), "pairs": len(pairs), "tokens": pairs.clean_tokens.shape[1]}}]


ANEW = "one by one"


def measure_whole(stage: str, calls: Mapping[str, Callable[[], Tensor]], effort: Effort, cuda: bool) -> Measured:
    """Time work that everyone does whole; interpose's is first.

    Args:
        stage: for the progress.
        calls: by name; each gives the result.
        effort: how often.
        cuda: whether a GPU has to be waited for.
    """
    measured = Measured()
    measured.profile, wanted = profiled(calls[OURS], cuda)
    measured.largest_value = float(wanted.abs().max())

    def timed(name: str) -> float:
        spent, found = clocked(calls[name], cuda)
        measured.saw(name, found, wanted)
        return spent

    turns = {name: partial(timed, name) for name in calls}
    for name in list(turns)[1:]:
        turns[name]()
    if measured.reasons:
        measured.reasons[OURS] = "; ".join(f"{name} {why}" for name, why in measured.reasons.items())
        return measured
    take_turns(stage, turns, measured, effort)
    return measured


def attribution(results: Path, device: str) -> dict[str, Any]:
    """The row on edge attribution, from what `attribution.py` measured on its own; the aim is on time and memory.

    Args:
        results: the folder of the results.
        device: cpu or cuda.
    """
    work, other = TEXTS["attribution"]
    aim = AIMS["attribution"][device]
    blank = {"name": "attribution", "work": work, "against": other, "aim": aim}
    path = results / ("attribution-cuda.json" if device == "cuda" else "attribution.json")
    if not path.is_file():
        return blank | {"absent": f"no {path.name}: benchmarks/attribution.py makes it"}
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = [{**each, "seconds": _exactly(each["seconds"])} if "ratio" in each else each for each in found["rows"]]
    ours = next(each for each in rows if each["name"].startswith("interpose"))
    others = [each for each in rows if each["name"].startswith("TransformerLens")]
    timed = [each for each in others if "ratio" in each]
    if not timed:
        return blank | {"absent": "; ".join(f"{each['name']}: {each['reason']}" for each in others) or "not compared"}
    fastest = min(timed, key=lambda each: each["seconds"]["median"])
    memory = ours["peak_memory_mb"] / fastest["peak_memory_mb"]
    note = (
        f"peak memory {memory:.2f} of the fastest other's, at most {MEMORY:g}; CPU time, {found['threads']} thread(s)"
    )
    holds = fastest["ratio"]["median"] >= aim and memory <= MEMORY
    made = {"ours": ours, "others": others, "fastest": fastest["name"], "ratio": fastest["ratio"], "holds": holds}
    return blank | made | {"note": note}


def _exactly(seconds: float) -> dict[str, float]:
    return {"median": seconds, "low": seconds, "high": seconds}


JOBS: dict[str, Callable[[ip.Model, argparse.Namespace], list[dict[str, Any]]]] = {
    "stream": partial(_stream, materials.LATE, "stream"),
    "early": partial(_stream, materials.EARLY, "early"),
    "long": _long,
    "heads": _heads,
    "curve": _curve,
}
"""What can be asked for by name; each gives one or two rows."""
