"""One cell of the benchmark: a model, a task and a method, run to a record."""

import hashlib
import json
import shlex
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from interpose import discovery, tasks
from interpose.benchmark.cutting import by_edge
from interpose.benchmark.given import Given, Way, default_sign, digest
from interpose.benchmark.job import Clock, Job, Material, carry_out, draw, machine, made
from interpose.benchmark.kept import Kept
from interpose.benchmark.limit import Limit, TooLong
from interpose.benchmark.record import Cost, Failure, Record
from interpose.benchmark.result import Found, result_of
from interpose.benchmark.truth import edge_auroc
from interpose.errors import InterposeError, Refused
from interpose.loading.cards import cards
from interpose.methods.base import Method, versions
from interpose.report.result import Accuracy
from interpose.search.progress import Watcher, watching
from interpose.trace import Model

_ROOT = Path(__file__).resolve().parents[1]
_SHARED = ("benchmark", "engine", "graph", "loading", "mediators", "metrics", "models", "search", "trace")
"""The packages whose code can change a number of any cell."""


@dataclass(frozen=True)
class Cell:
    """What one cell is about: plain data, which may travel.

    Attributes:
        model: as `load` takes it.
        task: a task's name.
        method: a method's name; the file's, where scores are given.
        settings: of the method, where they are not its own.
        counterfactual: how prompts are corrupted; None for the task's first way.
        examples: pairs to search with.
        proof: pairs to prove with.
        draws: random circuits of each kind and size.
        seed: of the pairs and of the random circuits.
        batch_size: pairs in one forward pass.
        device: where to run; None is the CPU.
        source: the text of the method's file, where it is neither interpose's own nor installed.
        scores: a file of scores, in place of a search.
        sign: what a positive score of that file says of its edge: `helps`, `hurts`, or `check` to find out.
    """

    model: str
    task: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    counterfactual: str | None = None
    examples: int = 64
    proof: int = 32
    draws: int = 5
    seed: int = 0
    batch_size: int = 16
    device: str | None = None
    source: str | None = None
    scores: str | None = None
    sign: Way | None = None

    @property
    def label(self) -> str:
        """The cell in a few words."""
        return f"{self.method_label} on {self.task}, {Path(self.model).name}"

    @property
    def method_label(self) -> str:
        """The method with the settings that are not its own, as `--methods` takes it."""
        given = ",".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.method}:{given}" if given else self.method

    @property
    def question(self) -> str:
        """All that a circuit's faithfulness depends on, besides the circuit: the same text, the same numbers."""
        names = ("model", "task", "counterfactual", "proof", "seed", "batch_size", "device")
        return json.dumps([getattr(self, name) for name in names])

    def key(self, model: "Identity") -> str:
        """A hash of everything that can change the cell: another key, another cell.

        Args:
            model: whose weights it is run on.

        Raises:
            InterposeError: there is no such task or method, or its file or that of the scores is not there.
        """
        asked = asdict(self)
        for name in ("scores", "sign"):
            if asked[name] is None:
                del asked[name]
        if self.scores is not None:
            asked["scores"] = digest(Path(self.scores))  # wherever it lies
        found = {**asked, **model._asdict(), "versions": _that_matter(), "code": _code(self)}
        return hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Identity(NamedTuple):
    """Which weights a model has, and of which type they are."""

    weights_hash: str
    dtype: str

    @classmethod
    def of(cls, model: Model) -> "Identity":
        """Those of a loaded model."""
        return cls(model.weights_hash, str(model.dtype))


class Outcome(NamedTuple):
    """What running a cell gave: the record, and the scores as the bytes of a safetensors file."""

    record: Record
    scores: bytes | None


def run(
    cell: Cell, key: str, model: Model, hours: float | None, tell: Watcher | None = None, kept: Kept | None = None
) -> Outcome:
    """Run one cell. What fails is part of the outcome, and is not raised.

    Args:
        cell: what to run.
        key: of the cell; see `Cell.key`.
        model: the cell's model, loaded.
        hours: the most that it may take; None for no limit.
        tell: told of all progress.
        kept: what an earlier run of this cell measured.
    """
    base = {"key": key, "cell": asdict(cell), "weights_hash": model.weights_hash, "dtype": str(model.dtype)}
    base |= {"created": datetime.now(UTC), "machine": machine(model), "versions": versions()}
    limit = Limit(hours, tell or _silent)
    material: Material | None = None
    seen: dict[str, Any] = {}
    try:
        with watching(limit):
            job, clock = _job(cell), Clock()
            material = draw(job, model, clock)
            seen["accuracy"] = _accuracy(material)
            if not material.accuracy.above_chance:
                return Outcome(Record(status="at chance", **base, **seen), None)
            found = carry_out(job, material, clock, limit, kept)
        return Outcome(Record(status="done", **base, **seen, **_measured(cell, found)), _bytes(found))
    except TooLong as stopped:
        return Outcome(Record(status="too long", **base, **seen, estimated_hours=stopped.hours), None)
    except Refused as refused:
        return Outcome(Record(status="does not apply", **base, **seen, failure=failure(refused)), None)
    except Exception as error:
        return Outcome(Record(status="failed", **base, **seen, failure=failure(error)), None)


def unloaded(cell: Cell, error: Exception) -> Record:
    """The record of a cell whose model could not be loaded."""
    base = {"key": cell.key(Identity("", "")), "cell": asdict(cell), "weights_hash": "", "dtype": ""}
    base |= {"created": datetime.now(UTC), "machine": "", "versions": versions()}
    return Record(status="failed", **base, failure=failure(error))


def failure(error: BaseException) -> Failure:
    """An error as it is recorded."""
    lines = traceback.format_exception(error)
    return Failure(kind=type(error).__name__, message=str(error), trace="".join(lines)[-4000:])


def method_class(cell: Cell) -> Any:
    """The class of a cell's method: of interpose, of an installed package, or of the file that travels with the cell.

    Raises:
        InterposeError: the file cannot be loaded, or defines nothing of its own name.
        UsageError: there is no such method.
    """
    if cell.source is None:
        return discovery.load("interpose.methods", cell.method)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{cell.method.replace('-', '_')}.py"
        path.write_text(cell.source, encoding="utf-8")
        return discovery.load_file(path)


def _method(cell: Cell) -> Method | Given:
    if cell.scores is not None:
        path = Path(cell.scores)
        return Given(path, cell.sign or default_sign(path), cell.batch_size)
    method = method_class(cell)
    try:
        return made(method, dict(cell.settings), cell.batch_size)
    except TypeError as error:
        raise InterposeError(f"{method.__name__} does not take these settings: {error}.") from error


def _job(cell: Cell) -> Job:
    return Job(
        task=tasks.named(cell.task),
        method=_method(cell),
        counterfactual=cell.counterfactual,
        examples=cell.examples,
        proof=cell.proof,
        seed=cell.seed,
        draws=cell.draws,
        batch_size=cell.batch_size,
        command=_command(cell),
    )


def _command(cell: Cell) -> str:
    words = ["interpose", "bench", "circuit", "--models", cell.model, "--tasks", cell.task]
    if cell.scores is None:
        words += ["--methods", cell.method_label]
    if cell.source is not None:
        words += ["--method", f"{cell.method.replace('-', '_')}.py"]
    for name in ("counterfactual", "examples", "proof", "draws", "seed", "batch_size", "device", "scores", "sign"):
        value = getattr(cell, name)
        if value != Cell.__dataclass_fields__[name].default:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _accuracy(material: Material) -> Accuracy:
    rate = material.accuracy.prefers
    low, high = rate.interval
    return Accuracy(rate=rate.value, low=low, high=high, n=rate.n)


def _measured(cell: Cell, found: Found) -> dict[str, Any]:
    points = found.evidence.circuit.signed.points
    return {
        "result": result_of(found),
        "units": "edges" if found.scores.meta["mediator"].startswith("Edges") else "nodes",
        "cost": Cost(**found.scores.meta["cost"]),
        "given": found.scores.meta.get("given"),
        "seconds": sum(found.timings.values()),
        "weighted_edges": tuple(point.kept for point in points),
        "auroc": _auroc(cell, found),
    }


def _auroc(cell: Cell, found: Found) -> float | None:
    """How well the scores tell the edges that the model's card knows from others; None where it knows none."""
    card = cards().get(cell.model.removeprefix("zoo/"))
    if card is None or card.truth is None:
        return None
    return edge_auroc(by_edge(found.scores, found.graph, share=False), card.truth.edges)


def _bytes(found: Found) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return found.scores.save(Path(folder) / "scores.safetensors").read_bytes()


def _that_matter() -> dict[str, str]:
    return {name: version for name, version in versions().items() if name != "python"}


def _code(cell: Cell) -> str:
    """A hash of all code that a number rests on, which may change while the version does not."""
    paths = [Path(cell.task) if Path(cell.task).is_file() else discovery.find("interpose.tasks", cell.task).path]
    if cell.source is None and cell.scores is None:
        paths.append(discovery.find("interpose.methods", cell.method).path)
    return hashlib.sha256(b"".join(path.read_bytes() for path in [*paths, *_shared(_ROOT)])).hexdigest()


@cache
def _shared(root: Path) -> tuple[Path, ...]:
    """The files that every cell rests on; other methods and tasks, and how results are shown, change no number."""
    own = [root / "methods" / "base.py", root / "tasks" / "base.py", *(root / "tasks").glob("_*.py")]
    return tuple(sorted([*own, *(path for folder in _SHARED for path in (root / folder).rglob("*.py"))]))


def _silent(*_: Any) -> None: ...
