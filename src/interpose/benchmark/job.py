"""Find a circuit and prove it, stage by stage: what `interpose locate` does once, and the benchmark once a cell."""

import platform
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from interpose.benchmark.cost import Meter, peak_memory
from interpose.benchmark.faithfulness import ProofSettings, prove
from interpose.benchmark.given import Given
from interpose.benchmark.kept import Kept
from interpose.benchmark.result import Found
from interpose.errors import Refused
from interpose.mediators.edges import Edges
from interpose.mediators.nodes import Nodes
from interpose.methods.base import Method
from interpose.search.behaviour import behaviour
from interpose.search.edge_patching import EdgePatching
from interpose.search.progress import Watcher
from interpose.search.scores import Scores
from interpose.tasks.base import Accuracy, Pairs, Task
from interpose.trace import Model


@dataclass(frozen=True)
class Job:
    """What to find.

    Attributes:
        task: whose pairs are drawn.
        method: how units are scored, or a file of scores.
        counterfactual: how prompts are corrupted; None for the task's first way.
        examples: pairs to search with, of the split `train`.
        proof: pairs to prove with, of the split `test`.
        seed: of the pairs and of the random circuits.
        draws: random circuits of each kind and size.
        batch_size: pairs in one forward pass.
        command: what gives the same result again.
    """

    task: Task
    method: Method | Given
    counterfactual: str | None = None
    examples: int = 64
    proof: int = 32
    seed: int = 0
    draws: int = 5
    batch_size: int = 16
    command: str = ""


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside as this stage's."""
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 2)


@dataclass(frozen=True)
class Material:
    """A model with the pairs of a job, and how it does on those of the proof."""

    model: Model
    search: Pairs
    proof: Pairs
    behaviour: dict[str, float]
    accuracy: Accuracy


def draw(job: Job, model: Model, clock: Clock) -> Material:
    """Draw the pairs, and see what the model makes of them.

    Raises:
        TaskError: the task cannot be asked of this model.
    """
    kind: dict[str, Any] = {"seed": job.seed, "counterfactual": job.counterfactual}
    with clock.stage("draw the prompts"):
        search = job.task.pairs(model, n=job.examples, split="train", **kind).to(model.device)
        proof = job.task.pairs(model, n=job.proof, split="test", **kind).to(model.device)
    with clock.stage("check the model"):
        measured = behaviour(model, proof, job.batch_size)
        accuracy = job.task.accuracy(model, proof, job.batch_size)
    means = {side: float(values.mean()) for side, values in measured.items()}
    return Material(model, search, proof, means, accuracy)


def carry_out(job: Job, material: Material, clock: Clock, tell: Watcher, kept: Kept | None = None) -> Found:
    """Search and prove.

    Args:
        job: what to find.
        material: in what; see `draw`.
        clock: told how long the stages take.
        tell: told how far the proof is; the search tells whoever watches (`interpose.search.progress`).
        kept: what an earlier run measured, which is not measured again; filled as results arrive.

    Raises:
        SearchError: the method or the proof cannot be had; see `Method.score` and `prove`.
    """
    model, before = material.model, peak_memory()
    rest = ", the rest after an interruption" if kept is not None and kept.resumed else ""
    with clock.stage("score the edges" + rest):
        scores = search(job, material) if kept is None else kept.scores(lambda: search(job, material))
    with clock.stage("prove the circuit" + rest):
        patching = EdgePatching(model, material.proof, Edges(), job.batch_size)
        cache: MutableMapping[str, Tensor] = {} if kept is None else kept
        settings = ProofSettings(draws=job.draws, seed=job.seed)
        told = prove(scores, patching.graph, patching, settings, _to(tell), cache)
    return Found(
        command=job.command,
        task=job.task,
        counterfactual=str(material.search.info["counterfactual"]),
        model=model,
        method=type(job.method),
        search=material.search,
        proof=material.proof,
        behaviour=material.behaviour,
        accuracy=material.accuracy,
        graph=patching.graph,
        scores=scores,
        evidence=told,
        timings=clock.seconds,
        peak_memory=max(before, peak_memory()),
        machine=machine(model),
        created=datetime.now(UTC),
        seed=job.seed,
    )


def search(job: Job, material: Material) -> Scores:
    """Score edges, or nodes where the method does not score edges.

    Their `meta` also has what it cost (`cost`) and what is needed to write them in other formats (`stream`).

    Raises:
        Refused: the method scores neither.
        SearchError: see `Method.score`.
    """
    meter = Meter(material.model)
    with meter.running():
        try:
            scores = job.method.score(material.model, material.search, Edges())
        except Refused as refused:
            try:
                scores = job.method.score(material.model, material.search, Nodes())
            except Refused:
                raise refused from None
    graph = Edges().graph(material.model)
    stream = {"layers": graph.layers, "heads": graph.heads, "parallel": graph.parallel}
    stream["width"] = material.model.sizes().width
    return replace(scores, meta={**scores.meta, "stream": stream, "cost": meter.cost.to_dict()})


def made(method: type[Method], settings: dict[str, Any], batch_size: int) -> Method:
    """A method with its settings, and with the job's batch size where it has one that is not set.

    Raises:
        TypeError: it has no such setting.
    """
    own = {"batch_size": batch_size} if "batch_size" in method.__dataclass_fields__ else {}
    return method(**{**own, **settings})


def machine(model: Model) -> str:
    """What the job ran on."""
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    return f"{platform.machine()}, {torch.get_num_threads()} threads, {platform.system()}"


def _to(tell: Watcher) -> Any:
    return lambda done, total: tell("running circuits", done, total)
