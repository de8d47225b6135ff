"""From what the stages of a job found to the result that is written and shown."""

import inspect
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch

from interpose.benchmark import Proof
from interpose.benchmark.cutting import by_edge, circuits, of_nodes
from interpose.benchmark.grid import SIZES
from interpose.benchmark.intervals import Estimate as Measured
from interpose.benchmark.proof import Curves, Point
from interpose.models.stream import StreamGraph
from interpose.report.evidence import Areas, ControlEstimate, Estimate, Size, Verdict
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
    Setting,
)
from interpose.search.scores import Scores
from interpose.search.selection import prune
from interpose.tasks.base import Accuracy as MeasuredAccuracy, Pairs, Task
from interpose.trace import Model

REQUIRED = (0.02, 0.05, 0.1, 0.2)
"""The sizes at which a circuit has to beat both controls."""
SHOWN = 0.05
"""The size of the circuit that is drawn."""


@dataclass(frozen=True)
class Found:
    """Everything that the stages of a job found; see `Result` for what becomes of each."""

    command: str
    task: Task
    counterfactual: str
    model: Model
    method: Any
    search: Pairs
    proof: Pairs
    behaviour: dict[str, float]
    accuracy: MeasuredAccuracy
    graph: StreamGraph
    scores: Scores
    evidence: Proof
    timings: dict[str, float]
    peak_memory: int
    machine: str
    created: datetime
    seed: int


def result_of(found: Found) -> Result:
    """The result as it is written.

    Args:
        found: what the stages found.

    Returns:
        the result, checked.
    """
    graph, evidence = found.graph, found.evidence
    scores = by_edge(found.scores, graph, share=True)
    shown = circuits(found.scores, graph, SIZES, absolute=False)[SIZES.index(SHOWN)]
    curve = tuple(_size(evidence, index) for index in range(len(evidence.circuit.signed.points)))
    heads, mlps = _parts(scores, graph)
    low, high = found.accuracy.prefers.interval
    return Result(
        created=found.created,
        command=found.command,
        question=_question(found),
        model=_model_card(found.model),
        method=_method_card(found),
        seed=found.seed,
        examples=Examples(
            search=len(found.search),
            proof=len(found.proof),
            search_split=str(found.search.info["split"]),
            proof_split=str(found.proof.info["split"]),
        ),
        accuracy=Accuracy(rate=found.accuracy.prefers.value, low=low, high=high, n=found.accuracy.n),
        behaviour=Behaviour(**found.behaviour),
        edges=graph.n_edges,
        curve=curve,
        areas={"circuit": _areas(evidence.circuit), **{name: _areas(c) for name, c in evidence.controls.items()}},
        verdict=Verdict.of(curve, REQUIRED),
        chosen=Chosen.of(SHOWN, _edges(scores, prune(shown, graph))),
        heads=heads,
        mlps=mlps,
        top_edges=_top_edges(scores, 30),
        timings=found.timings,
        peak_memory_bytes=found.peak_memory,
        versions={name: str(version) for name, version in found.scores.meta["versions"].items()},
        machine=found.machine,
    )


def _question(found: Found) -> Question:
    pairs, tokenizer = found.proof, found.model.tokenizer
    return Question(
        task=str(pairs.info["task"]),
        description=found.task.description.splitlines()[0],
        counterfactual=found.counterfactual,
        clean=pairs.clean[0],
        corrupt=pairs.corrupt[0],
        answer=tokenizer.decode([int(pairs.answers[0])]),
        wrong=tokenizer.decode([int(pairs.wrong[0])]),
    )


def _model_card(model: Model) -> ModelCard:
    dims = model.sizes()
    return ModelCard(
        name=model.info.name,
        source=model.info.source,
        note=model.info.note,
        licence=model.info.licence,
        weights_hash=model.weights_hash,
        layers=dims.layers,
        heads=dims.heads,
        parameters=sum(weight.numel() for weight in model.network.parameters()),
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
    )


def _method_card(found: Found) -> MethodCard:
    doc, meta = inspect.getdoc(found.method) or "", found.scores.meta
    settings = {name: value if isinstance(value, Setting) else str(value) for name, value in meta["settings"].items()}
    summary = doc.partition("\n")[0]
    if of_nodes(found.scores, found.graph):
        summary += " It scores nodes, each of which brings all edges that leave it; an edge is shown with its share."
    return MethodCard(name=meta["method"], settings=settings, summary=summary, given="given" in meta)


def _size(evidence: Proof, index: int) -> Size:
    point = evidence.circuit.signed.points[index]
    return Size(
        fraction=point.size,
        edges=point.budget,
        edges_after_pruning=int(point.kept),
        signed=_estimate(point.faithfulness),
        absolute=_estimate(evidence.circuit.absolute.points[index].faithfulness),
        controls={name: _control(curves.signed.points[index]) for name, curves in evidence.controls.items()},
    )


def _estimate(measured: Measured) -> Estimate:
    return Estimate(mean=measured.value, low=measured.low, high=measured.high)


def _control(point: Point) -> ControlEstimate:
    measured = point.faithfulness
    return ControlEstimate(draws=len(point.draws), mean=measured.value, low=measured.low, high=measured.high)


def _areas(curves: Curves) -> Areas:
    return Areas(
        cpr=_estimate(curves.cpr),
        cmd=_estimate(curves.cmd),
        cpr_log=_estimate(curves.log_cpr),
        cmd_log=_estimate(curves.log_cmd),
    )


def _parts(scores: Scores, graph: StreamGraph) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """The sum of the scores of all edges that leave each head, and each MLP."""
    totals = torch.zeros(graph.n_sources, dtype=torch.float64)
    sources = torch.cat([torch.arange(place.upstream) for place in graph.inputs])
    totals.index_add_(0, sources, scores.values.double())
    blocks = totals[1:].view(graph.layers, graph.heads + 1)
    heads = tuple(tuple(row) for row in blocks[:, :-1].tolist())
    return heads, tuple(blocks[:, -1].tolist())


def _edges(scores: Scores, mask: torch.Tensor) -> tuple[EdgeScore, ...]:
    return tuple(_edge(scores, int(index)) for index in mask.nonzero().flatten().tolist())


def _edge(scores: Scores, index: int) -> EdgeScore:
    source, destination = scores.units[index].split("->")
    return EdgeScore(source=source, destination=destination, score=float(scores.values[index]))


def _top_edges(scores: Scores, count: int) -> tuple[EdgeScore, ...]:
    best = scores.values.abs().argsort(descending=True)[:count]
    return tuple(_edge(scores, int(index)) for index in best.tolist())
