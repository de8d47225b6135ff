"""The matrix of the benchmark: which cells are asked for, their running, and the leaderboard that is written."""

import ast
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpose import discovery, tasks
from interpose.benchmark.cell import Cell
from interpose.benchmark.given import Given, Way, default_sign, export_mib
from interpose.benchmark.leaderboard import as_csv, document, row
from interpose.benchmark.matrix import Engine, Local, bench as run_matrix
from interpose.benchmark.presets import OWN, PRESETS, Preset
from interpose.benchmark.record import Record
from interpose.benchmark.store import Store
from interpose.cli._job import check_counterfactual, check_numbers, check_proof
from interpose.cli._progress import board
from interpose.cli.base import make_folder
from interpose.errors import UsageError
from interpose.loading.cards import cards
from interpose.methods.base import versions
from interpose.report import leaderboard
from interpose.search.scores import Scores

if TYPE_CHECKING:
    from interpose.cli.bench import Bench

DEFAULT_MODEL = "smollm2-135m-instruct"
_PLAIN = Preset(models={}, zoo=False, hours=None, examples=64, proof=32, batch_size=16)


def bench(asked: "Bench") -> dict[str, Any]:
    """Run a matrix and write its leaderboard.

    Args:
        asked: what the command line says.

    Returns:
        the leaderboard as it stands in `leaderboard.json`.

    Raises:
        InterposeError: the folder cannot be written to, or the engine cannot be had.
        UsageError: a name or a number cannot be meant.
    """
    preset = PRESETS[asked.preset] if asked.preset else _PLAIN
    cells = list(cells_of(asked, preset))
    make_folder(asked.out)
    store = Store(asked.out)
    hours = preset.hours if asked.hours is None else asked.hours
    engine = _engine(asked, store)
    try:
        with board() as watching:
            found = run_matrix(cells, store, engine, hours, watching)
    finally:
        engine.close()
    written = _write(asked.out, store, found)
    if asked.mib:
        _export(asked.out, store, found)
    print(f"{_summary(found)}\nLeaderboard: {asked.out / 'index.html'}", file=sys.stderr if asked.json else sys.stdout)
    return written


def cells_of(asked: "Bench", preset: Preset) -> Iterator[Cell]:
    """Every cell of a matrix, model by model.

    Raises:
        UsageError: a name or a number cannot be meant.
    """
    numbers = {name: getattr(preset, name) for name in ("examples", "proof", "batch_size")}
    numbers |= {name: getattr(asked, name) for name in numbers if getattr(asked, name) is not None}
    check_numbers(numbers["examples"], numbers["proof"], numbers["batch_size"], asked.draws)
    check_proof(numbers["proof"])
    if asked.hours is not None and asked.hours <= 0:
        raise UsageError(f"--hours is {asked.hours:g}; write a number above 0, or leave it out for no limit.")
    methods = list(_methods(asked))
    shared: dict[str, Any] = {name: getattr(asked, name) for name in ("counterfactual", "draws", "seed", "device")}
    files = _files(asked)
    for model, task in _questions(asked, preset):
        check_counterfactual(asked.counterfactual, task, tasks.named(task))
        for name, settings, source in methods:
            yield Cell(model, task, name, settings, source=source, **numbers, **shared)
        for path, sign in files.items():
            yield Cell(model, task, path.name, scores=str(path), sign=sign, **numbers, **shared)


def _questions(asked: "Bench", preset: Preset) -> Iterator[tuple[str, str]]:
    """Every model with each of its tasks."""
    own = {name: card.task for name, card in cards().items() if card.task}
    models = asked.models or (*preset.models, *(own if preset.zoo else ())) or (DEFAULT_MODEL,)
    for model in models:
        default = preset.models.get(model, (OWN,) if preset.zoo else ())
        wanted = asked.tasks or default
        if not wanted:
            known = ", ".join(entry.name for entry in discovery.entries("interpose.tasks"))
            raise UsageError(f"Say which tasks: --tasks, followed by some of {known}; or --preset small.")
        for task in wanted:
            if task != OWN:
                yield model, task
            elif model in own:
                yield model, own[model]
            else:
                made = ", ".join(own) or "none yet"
                raise UsageError(f"{model} was not made for a task of its own, so name one. Models that were: {made}.")


def _methods(asked: "Bench") -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """The name, the settings and, for a file of the user's own, the text of every method."""
    sources: dict[str, str] = {}
    for path in asked.method:
        discovery.load_file(path)  # what is wrong with it is said now
        sources[path.stem.replace("_", "-")] = path.read_text(encoding="utf-8")
    every = [entry.name for entry in discovery.entries("interpose.methods")]
    wanted = asked.methods or (*([] if sources or asked.scores else every), *sources)
    for written in dict.fromkeys((*wanted, *sources)):
        name, _, settings = written.partition(":")
        found = name if name in sources else discovery.find("interpose.methods", name).name
        yield found, _settings(written, settings), sources.get(name)


def _files(asked: "Bench") -> dict[Path, Way]:
    """The files of scores, each with how its sign is settled; what is wrong with one is said now."""
    if asked.sign is not None and not asked.scores:
        raise UsageError("--sign says what a positive score of a file means; write --scores FILE beside it.")
    files: dict[Path, Way] = {path: asked.sign or default_sign(path) for path in asked.scores}
    for path, sign in files.items():
        other = next(each for each in files if each.name == path.name)
        if other != path:
            raise UsageError(f"{other} and {path} would be one row, {path.name}. Rename one of them.")
        Given(path, sign).read()
    return files


def _settings(written: str, settings: str) -> dict[str, Any]:
    """`steps=10,kind=mean` as a dict; what is no Python value is text."""
    made: dict[str, Any] = {}
    for part in filter(None, settings.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"{written!r} has a setting {part!r}. Write it as in eap-ig:steps=10,batch_size=4.")
        try:
            made[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            made[name] = value
    return made


def _engine(asked: "Bench", store: Store) -> Engine:
    if asked.engine == "ray":
        from interpose.benchmark.ray_engine import Ray

        return Ray(asked.address)
    if asked.address is not None:
        raise UsageError("--address is the address of a Ray cluster; write --engine ray beside it.")
    return Local(store.folder)


def _write(out: Path, store: Store, found: Sequence[tuple[Cell, Record]]) -> dict[str, Any]:
    rows = []
    for cell, record in found:
        page = f"cells/{store.name(cell, record.key)}.html" if record.status == "done" else ""
        rows.append(row(cell, record, page))
    written = document(rows, {name: str(version) for name, version in versions().items()})
    _replace(out / "leaderboard.csv", as_csv(rows))
    _replace(out / "leaderboard.json", leaderboard.as_json(written))
    _replace(out / "index.html", leaderboard.html(written))
    return written


def _export(out: Path, store: Store, found: Sequence[tuple[Cell, Record]]) -> None:
    """Write the scores of all cells that are done as JSON of the MIB circuit track."""
    folder = out / "mib"
    folder.mkdir(exist_ok=True)
    done = [(cell, record) for cell, record in found if record.status == "done"]
    for cell, record in done:
        name = store.name(cell, record.key)
        export_mib(folder / f"{name}.json", Scores.load(store.folder / f"{name}.safetensors"))
    print(f"MIB's JSON of {len(done)} cell{'s' if len(done) != 1 else ''}: {folder}", file=sys.stderr)


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _summary(found: Sequence[tuple[Cell, Record]]) -> str:
    """How many cells became what, and why those that failed did."""
    counts: dict[str, int] = {}
    for _, record in found:
        counts[record.status] = counts.get(record.status, 0) + 1
    lines = [
        f"{len(found)} cell{'s' if len(found) != 1 else ''}: "
        + ", ".join(f"{count} {status}" for status, count in counts.items())
        + "."
    ]
    for cell, record in found:
        if record.status == "failed" and record.failure is not None:
            lines.append(f"  failed: {cell.label}: {record.failure.message.splitlines()[0]}")
    return "\n".join(lines)
