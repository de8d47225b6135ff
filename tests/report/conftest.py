"""Made-up results: as sparse as a real circuit, failing, tiny, large. The same arguments always give the same one."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from interpose.report import circuit, leaderboard
from interpose.report.circuit import CircuitFigure
from interpose.report.evidence import Areas, ControlEstimate, Estimate, Size, Verdict
from interpose.report.page import write
from interpose.report.result import (
    Accuracy,
    Behaviour,
    Chosen,
    EdgeScore,
    Examples,
    MethodCard,
    ModelCard,
    Question,
    Result,
)

GRID = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
FAITHFUL = (0.08, 0.19, 0.38, 0.57, 0.74, 0.91, 1.02, 1.08, 1.03, 1.0)


def edge_count(layers: int, heads: int) -> int:
    """The closed form that the benchmark counts by, written out anew."""
    per_layer = (3 * heads * (1 + i * (heads + 1)) + (1 + i * (heads + 1) + heads) for i in range(layers))
    return sum(per_layer) + 1 + layers * (heads + 1)


def estimate(mean: float, width: float) -> Estimate:
    return Estimate(mean=mean, low=mean - width, high=mean + width)


def make_curve(total: int, holds: bool, dice: random.Random) -> tuple[Size, ...]:
    sizes = []
    for fraction, f in zip(GRID, FAITHFUL, strict=True):
        edges = max(1, int(fraction * total))
        full = fraction == 1.0
        mean = f if holds or full else 0.3 * f * fraction
        width = 0 if full else 0.06 if holds else 0.2
        controls = {}
        for name, lift in (("uniform", 0.0), ("shuffled", 0.03)):
            value = 1.0 if full else lift * fraction**0.3 + 0.25 * fraction**2 + dice.uniform(-0.01, 0.01)
            spread = 0 if full else 0.02 + 0.1 * fraction
            controls[name] = ControlEstimate(mean=value, low=value - spread, high=value + 2 * spread, draws=5)
        sizes.append(
            Size(
                fraction=fraction,
                edges=edges,
                edges_after_pruning=edges if full else int(edges * 0.93),
                signed=estimate(mean, width),
                absolute=estimate(0.93 * mean if not full else 1.0, width),
                controls=controls,
            )
        )
    return tuple(sizes)


def depth(name: str) -> float:
    if name in ("input", "logits"):
        return -1 if name == "input" else 1e9
    return int(name[1:].split(".")[0]) + (0.5 if name[0] == "m" else 0)


class Wiring:
    """Edges with heavy-tailed scores, laid between groups of parts."""

    def __init__(self, layers: int, heads: int, dice: random.Random) -> None:
        self.layers, self.heads, self.dice = layers, heads, dice
        self.scores: dict[tuple[str, str], float] = {}

    def some(self, first: float, last: float, n: int) -> list[str]:
        low, high = int(first * self.layers), max(int(first * self.layers) + 1, int(last * self.layers))
        layer = lambda: min(self.dice.randrange(low, high), self.layers - 1)  # noqa: E731
        return sorted({f"a{layer()}.h{self.dice.randrange(self.heads)}" for _ in range(n)})

    def join(self, ends: tuple[list[str], list[str]], ports: str, size: float, keep: float) -> None:
        for source in ends[0]:
            for destination in (d for d in ends[1] if depth(source) < depth(d)):
                for port in (port for port in ports if self.dice.random() < keep):
                    end = f"{destination}<{port}>" if destination[0] == "a" else destination
                    self.scores[source, end] = size * self.dice.lognormvariate(0, 0.7)

    def scatter(self, count: int) -> None:
        """The long tail of weak edges."""
        dice = self.dice
        while len(self.scores) < count:
            first, second = sorted(dice.sample(range(self.layers), 2)) if self.layers > 1 else (0, 0)
            source = dice.choice([f"a{first}.h{dice.randrange(self.heads)}", f"m{first}", "input"])
            head = f"a{second}.h{dice.randrange(self.heads)}<{dice.choice('qkv')}>"
            destination = dice.choice([head, f"m{second}", "logits"])
            if depth(source) < depth(destination.split("<")[0]):
                score = 0.004 * dice.paretovariate(2) * dice.choice((1, 1, 1, -1))
                self.scores.setdefault((source, destination), score)


def make_edges(layers: int, heads: int, count: int, dice: random.Random) -> tuple[EdgeScore, ...]:
    """An early MLP, duplicate-token, inhibition and name-mover heads, two against the answer, and a long tail."""
    wiring = Wiring(layers, heads, dice)
    some, join = wiring.some, wiring.join
    early, middle, late, against = some(0, 0.3, 4), some(0.4, 0.65, 6), some(0.68, 0.95, 6), some(0.85, 1, 2)
    mlps = sorted({f"m{int(part * (layers - 1))}" for part in (0, 0.05, 0.1, 0.35, 0.6, 0.8, 1.0)})
    join((["input"], mlps[:1]), "-", 0.5, 1)
    join((["input", *mlps[:1]], early), "qkv", 0.12, 0.5)
    join(([*early, *mlps[:2]], middle), "kv", 0.08, 0.5)
    join((middle, late), "q", 0.1, 0.45)
    join((mlps, mlps), "-", 0.05, 0.35)
    join((["input", *mlps[:2]], late), "v", 0.06, 0.4)
    join((late, ["logits"]), "-", 0.3, 1)
    join((mlps[-2:], ["logits"]), "-", 0.07, 1)
    join((middle, against), "q", -0.05, 0.5)
    join((["input", *mlps[:1]], against), "kv", -0.03, 0.5)
    join((against, ["logits"]), "-", -0.2, 1)
    wiring.scatter(count)
    ranked = sorted(wiring.scores.items(), key=lambda item: -abs(item[1]))
    return tuple(EdgeScore(source=s, destination=d, score=score) for (s, d), score in ranked)


def make_result(
    layers: int = 30, heads: int = 9, *, holds: bool = True, long: bool = False, edges: int = 5790
) -> Result:
    dice = random.Random(7)
    total = edge_count(layers, heads)
    curve = make_curve(total, holds, dice)
    shown = curve[5]
    scored = make_edges(layers, heads, min(edges, shown.edges_after_pruning), dice)
    importance = [[dice.gauss(0, 0.006) for _ in range(heads)] for _ in range(layers)]
    mlps = [0.05 * dice.gauss(0, 1) for _ in range(layers)]
    mlps[0] = 0.62
    chosen = Chosen.of(shown.fraction, scored)
    for node in chosen.nodes:
        if node.name.startswith("a") and abs(node.score) > 0.05:
            layer, head = node.name[1:].split(".h")
            importance[int(layer)][int(head)] = node.score
    area = Areas(
        cpr=estimate(1.01 if holds else 0.31, 0.03),
        cmd=estimate(0.05 if holds else 0.71, 0.02),
        cpr_log=estimate(0.66 if holds else 0.12, 0.04),
        cmd_log=estimate(0.38 if holds else 0.89, 0.04),
    )
    useless = Areas(
        cpr=estimate(0.27, 0.02), cmd=estimate(0.73, 0.02), cpr_log=estimate(0.09, 0.02), cmd_log=estimate(0.92, 0.02)
    )
    clean = "When Sarah and Tom went to the market, Tom gave a basket of apples to"
    filler = "In the long story of the village that everybody there knew by heart, " * 25
    return Result(
        created=datetime(2026, 11, 22, 15, 30, tzinfo=UTC),
        command="interpose locate ioi --method eap-ig --examples 64 --seed 0 --out results/ioi",
        question=Question(
            task="ioi",
            description="Which of two people named in a sentence receives the object: the one who was named only once.",
            counterfactual="s2_io_flip",
            clean=(filler if long else "") + clean,
            corrupt=(filler if long else "") + clean.replace(", Tom", ", Sarah"),
            answer=" Sarah",
            wrong=" Tom",
        ),
        model=ModelCard(
            name="SmolLM2-135M-Instruct",
            source="wheel",
            note="4-bit, dequantised",
            licence="Apache-2.0",
            weights_hash="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            layers=layers,
            heads=heads,
            parameters=134_515_008,
            dtype="float32",
            device="cpu",
        ),
        method=MethodCard(
            name="eap-ig",
            settings={"steps": 5, "batch": 8},
            summary="Edge attribution with gradients averaged along the path from the corrupted to the clean input.",
        ),
        seed=0,
        examples=Examples(search=64, proof=32, search_split="train", proof_split="test"),
        accuracy=Accuracy(rate=0.9375, low=0.86, high=0.98, n=64),
        behaviour=Behaviour(clean=3.214, corrupt=-2.871),
        edges=total,
        curve=curve,
        areas={"circuit": area, "uniform": useless, "shuffled": useless},
        verdict=Verdict.of(curve, (0.02, 0.05, 0.1, 0.2)),
        chosen=chosen,
        heads=tuple(tuple(row) for row in importance),
        mlps=tuple(mlps),
        top_edges=scored[:25],
        timings={"load": 2.8, "pairs": 0.6, "search": 96.2, "proof": 281.4, "report": 1.3},
        peak_memory_bytes=2_314_000_000,
        versions={"python": "3.11.7", "torch": "2.13.0+cpu", "transformers": "5.23.0", "interpose": "0.1.0"},
        machine="Linux x86_64, 2 cores, 8 GB",
    )


KINDS: dict[str, dict[str, Any]] = {
    "holds": {},
    "fails": {"holds": False, "layers": 6, "heads": 4, "edges": 40},
    "tiny": {"layers": 1, "heads": 1, "edges": 5},
    "long": {"long": True, "layers": 3, "heads": 2, "edges": 20},
    "flat": {"layers": 2, "heads": 32, "edges": 300},
    "large": {"layers": 80, "heads": 64},
}


@pytest.fixture(scope="session")
def make() -> Callable[..., Result]:
    """The builder of made-up results."""
    return make_result


@pytest.fixture(scope="session")
def results() -> dict[str, Result]:
    """One result of each kind."""
    return {name: make_result(**settings) for name, settings in KINDS.items()}


@pytest.fixture(scope="session")
def drawings(results: dict[str, Result]) -> dict[str, CircuitFigure]:
    """Their circuits drawn, made once."""
    made = {name: circuit.figure(result) for name, result in results.items()}
    return {name: figure for name, figure in made.items() if figure is not None}


@pytest.fixture(scope="session")
def pages(results: dict[str, Result], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Their pages, made once."""
    folder = tmp_path_factory.mktemp("pages")
    return {name: write(result, folder / f"{name}.html") for name, result in results.items()}


def make_row(method: str, model: str = "small", task: str = "ioi", **fields: Any) -> dict[str, Any]:
    """A row of a leaderboard: done, unless told otherwise."""
    areas = {"cpr": 1.2, "cmd": 0.1, "cpr_log": 0.7, "cmd_log": 0.3}
    row: dict[str, Any] = {"model": model, "task": task, "counterfactual": "abc", "method": method, "units": "edges"}
    row |= {"status": "done", "why": None, "estimated_hours": None, "accuracy": 0.9, "above_controls": True}
    for ranking in ("circuit", "uniform", "shuffled"):
        for name, value in areas.items():
            key = f"{ranking}_{name}"
            row |= {key: value, f"{key}_low": value - 0.05, f"{key}_high": value + 0.05}
    row |= {"auroc": None, "edges": 46, "seconds": 9.0, "search_seconds": 2.5, "search_memory": 3_000_000}
    row |= {"search_memory_of": "memory of the process", "forward_passes": 12, "backward_passes": 5}
    row |= {"published_cpr": None, "published_cmd": None, "published_auroc": None, "published_source": None}
    row |= {f"scores_{name}": None for name in ("file", "sha256", "sign", "positive", "highest", "lowest")}
    row |= {"key": f"{model}{task}{method}", "page": f"cells/{method}.html"}
    row |= fields
    if row["status"] != "done":
        row |= {name: None for name in row if name.startswith(("circuit_", "uniform_", "shuffled_", "search_"))}
        row |= {"page": None, "above_controls": None, "units": None, "forward_passes": None, "backward_passes": None}
    return row


@pytest.fixture(scope="session")
def make_board() -> Callable[..., dict[str, Any]]:
    """Makes a leaderboard of rows, each a method with fields of its own."""

    def make(*rows: tuple[str, dict[str, Any]]) -> dict[str, Any]:
        cells = [make_row(method, **fields) for method, fields in rows]
        return {"schema_version": 1, "track": "circuit", "versions": {"interpose": "1.0"}, "cells": cells}

    return make


@pytest.fixture(scope="session")
def leaderboard_page(make_board: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, three methods; one cell is blank, and one method's name is hostile."""
    board = make_board(
        ("eap", {"circuit_cpr": 0.5, "search_seconds": 1.0}),
        ("eap-ig", {"circuit_cpr": 1.5, "search_seconds": 10.0}),
        ("exact", {"status": "too long", "estimated_hours": 12.5}),
        ("eap", {"model": "large", "circuit_cpr": 0.9, "search_seconds": 2.0}),
        ("<script>alert(1)</script>", {"model": "large", "circuit_cpr": 0.1, "search_seconds": 3.0}),
    )
    path = tmp_path_factory.mktemp("leaderboard") / "index.html"
    path.write_text(leaderboard.html(board), encoding="utf-8")
    return path
