"""The main job, stage by stage: load, draw, check, search, prove, show."""

import platform
import resource
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from interpose import __version__, discovery, tasks
from interpose.benchmark import Proof, ProofSettings, prove
from interpose.cli._progress import bars
from interpose.cli._result import Found, result_of
from interpose.cli._resume import Kept
from interpose.cli.base import make_folder
from interpose.errors import TaskError, UsageError
from interpose.loading import load
from interpose.mediators.edges import Edges
from interpose.report import Result, write
from interpose.search.behaviour import behaviour
from interpose.search.edge_patching import EdgePatching
from interpose.search.progress import Watcher
from interpose.search.scores import Scores
from interpose.tasks.base import Accuracy, Pairs, Task
from interpose.trace import Model

if TYPE_CHECKING:
    from interpose.cli.locate import Locate

_MOST_EXAMPLES = 10_000


def locate(asked: "Locate", out: Path) -> Result:
    """Find, prove and show a circuit.

    Args:
        asked: what the command line says.
        out: the folder to write to.

    Returns:
        the result, which is then also in `out`.

    Raises:
        InterposeError: a stage failed.
        TaskError: the model does the task no better than chance.
        UsageError: a name or a number cannot be meant.
    """
    task = tasks.named(asked.task)
    method = discovery.load("interpose.methods", asked.method)
    _check(asked, task, out)
    settings = {"batch_size": asked.batch_size} if "batch_size" in method.__dataclass_fields__ else {}
    clock = Clock()
    with bars() as tell:
        with clock.stage("load the model"):
            model = load(asked.model, device=asked.device)
        with clock.stage("draw the prompts"):
            search, proof = _pairs(asked, task, model)
        with clock.stage("check the model"):
            measured = behaviour(model, proof, asked.batch_size)
            accuracy = task.accuracy(model, proof, asked.batch_size)
            _check_chance(asked, accuracy)
        kept = Kept(out, _identity(asked, model, search))
        rest = ", the rest after an interruption" if kept.resumed else ""
        with clock.stage("score the edges" + rest):
            scores = kept.scores(lambda: method(**settings).score(model, search, Edges()))
        with clock.stage("prove the circuit" + rest):
            evidence = _prove(asked, model, proof, scores, kept, tell)
    found = Found(
        command=_command(asked),
        task=task,
        counterfactual=str(search.info["counterfactual"]),
        model=model,
        method=method,
        search=search,
        proof=proof,
        behaviour={side: float(values.mean()) for side, values in measured.items()},
        accuracy=accuracy,
        scores=scores,
        evidence=evidence,
        timings=clock.seconds,
        peak_memory=peak_memory(),
        machine=machine(model),
        created=datetime.now(UTC),
        seed=asked.seed,
    )
    result = result_of(found)
    scores.save(out / "scores.safetensors")
    result.save(out / "result.json")
    page = write(result, out / "report.html")
    kept.clear()
    print(f"{result_line(result)}\nReport: {page}", file=sys.stderr if asked.json else sys.stdout)
    return result


def _check(asked: "Locate", task: Task, out: Path) -> None:
    """Refuse what cannot be meant, before anything is loaded."""
    if asked.counterfactual not in (None, *task.counterfactuals):
        known = ", ".join(task.counterfactuals)
        raise UsageError(f"{asked.task} has no counterfactual {asked.counterfactual!r}. There are: {known}.")
    for name in ("examples", "proof"):
        if not 2 <= getattr(asked, name) <= _MOST_EXAMPLES:
            raise UsageError(f"--{name} is {getattr(asked, name)}; write a number from 2 to {_MOST_EXAMPLES:,}.")
    if asked.batch_size < 1:
        raise UsageError(f"--batch-size is {asked.batch_size}; write a number of pairs, 1 or more.")
    if asked.draws < ProofSettings().draws:
        raise UsageError(f"--draws is {asked.draws}; write {ProofSettings().draws} or more.")
    make_folder(out)


def _check_chance(asked: "Locate", accuracy: Accuracy) -> None:
    """Refuse to explain what the model does not do, unless that is asked for."""
    if accuracy.above_chance:
        return
    what = (
        f"{asked.model} does {asked.task} no better than chance: it prefers the answer to the wrong one in "
        f"{accuracy.prefers} of {accuracy.n} held-out pairs, where chance is 50 %."
    )
    if asked.at_chance == "stop":
        raise TaskError(
            f"{what} Expected a 95 % interval that lies above 50 %, since what a model does not do has no circuit. "
            "Choose another task or --model; where the rate is high and the interval wide, take more pairs with "
            "--proof; or write --at-chance go-on to search all the same."
        )
    print(f"warning: {what} The search goes on, as --at-chance says.", file=sys.stderr)


def result_line(result: Result) -> str:
    """What was found, in the report's own two sentences."""
    from interpose.report.story import answer

    return " ".join(answer(result))


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


def _pairs(asked: "Locate", task: Task, model: Model) -> tuple[Pairs, Pairs]:
    """Pairs to search with, and pairs to prove with from another split."""
    kind: dict[str, Any] = {"seed": asked.seed, "counterfactual": asked.counterfactual}
    search = task.pairs(model, n=asked.examples, split="train", **kind)
    return search.to(model.device), task.pairs(model, n=asked.proof, split="test", **kind).to(model.device)


def _prove(asked: "Locate", model: Model, proof: Pairs, scores: Scores, kept: "Kept", tell: Watcher) -> Proof:
    patching = EdgePatching(model, proof, Edges(), asked.batch_size)
    return prove(
        scores,
        patching.graph,
        patching,
        ProofSettings(draws=asked.draws, seed=asked.seed),
        progress=lambda done, total: tell("running circuits", done, total),
        cache=kept,
    )


def _identity(asked: "Locate", model: Model, search: Pairs) -> dict[str, Any]:
    """All that a kept measurement depends on."""
    names = ("task", "method", "examples", "proof", "counterfactual", "seed")
    return {name: getattr(asked, name) for name in names} | {
        "file": search.info.get("sha256"),
        "weights": model.weights_hash,
        "dtype": str(model.dtype),
        "interpose": __version__,
    }


def _command(asked: "Locate") -> str:
    """The command that gives this result again."""
    words = ["interpose", "locate", asked.task]
    for name, field in type(asked).__dataclass_fields__.items():
        value = getattr(asked, name)
        if name not in ("task", "json", "out") and value != field.default:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def peak_memory() -> int:
    """The most memory that this process has held, in bytes; on a GPU, of the GPU's."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(model: Model) -> str:
    """What the job ran on."""
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    return f"{platform.machine()}, {torch.get_num_threads()} threads, {platform.system()}"
