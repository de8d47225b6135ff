"""Cells on the machines of a Ray cluster: each task runs one cell and gives back bytes, which are stored here."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, final

from interpose.benchmark.cell import Cell, Identity, Outcome, unloaded
from interpose.benchmark.matrix import Planned, Watching, identified, outcome_of
from interpose.benchmark.record import Record
from interpose.errors import InterposeError


@final
class Ray:
    """Runs cells on a cluster, as many at once as it has processors (or GPUs, where a cell asks for one).

    Args:
        address: of the cluster; `auto` for the one that this machine belongs to; None to start one on this machine,
            which ends with the work.
        options: more arguments of `ray.init`.

    Raises:
        InterposeError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str | None = None, **options: Any) -> None:
        """Connect."""
        # Nothing is to be sent to Ray's makers; it is read when Ray starts.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
            from ray.exceptions import RayError
        except ImportError as error:
            raise InterposeError(
                "The engine `ray` needs Ray, which is not installed. Install it with: pip install 'interpose[ray]'"
            ) from error
        quiet = {
            "log_to_driver": False,
            "logging_level": "ERROR",
            "include_dashboard": False if address is None else None,
        }
        try:
            ray.init(address=address, **{**quiet, **options})
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InterposeError(
                f"There is no Ray cluster at {address}: {error}. Start one with `ray start --head`, or leave --address "
                "out to use this machine."
            ) from error
        self._ray, self._failed = ray, RayError

    def identify(self, models: Sequence[tuple[str, str | None]]) -> Iterator[Identity | Exception]:
        """See `interpose.benchmark.matrix.Engine.identify`."""
        tasks = [self._submit(_identify, device, name, device) for name, device in models]
        for task in tasks:
            try:
                found = json.loads(self._ray.get(task))
            except self._failed as error:
                yield InterposeError(f"A worker of the cluster failed: {error}")
                continue
            yield Identity(**found["identity"]) if "identity" in found else InterposeError(found["error"])

    def run(
        self, work: Sequence[Planned], hours: float | None, watching: Watching
    ) -> Iterator[tuple[Planned, Outcome]]:
        """See `interpose.benchmark.matrix.Engine.run`."""
        running: dict[Any, Planned] = {}
        for planned in work:
            task = self._submit(_run, planned.cell.device, json.dumps(asdict(planned.cell)), planned.key, hours)
            running[task] = planned
        watching.begun("on the cluster")
        try:
            while running:
                (task,), _ = self._ray.wait(list(running), num_returns=1)
                planned = running.pop(task)
                yield planned, self._outcome(task, planned)
        finally:
            for task in running:
                self._ray.cancel(task, force=True)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()

    def _submit(self, function: Any, device: str | None, *arguments: Any) -> Any:
        gpus = 1 if (device or "").startswith("cuda") else 0
        return self._ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(function).remote(*arguments)

    def _outcome(self, task: Any, planned: Planned) -> Outcome:
        try:
            record, scores = self._ray.get(task)
        except self._failed as error:
            # The worker itself ended, by want of memory as a rule: what a cell raises is in its record.
            why = InterposeError(f"The worker that ran this cell ended: {type(error).__name__}: {error}")
            return Outcome(unloaded(planned.cell, why).model_copy(update={"key": planned.key}), None)
        return Outcome(Record.model_validate_json(record), scores)


def _identify(name: str, device: str | None) -> str:
    """On a worker: which weights a model has there."""
    found = identified(name, device)
    if isinstance(found, Exception):
        return json.dumps({"error": f"{type(found).__name__}: {found}"})
    return json.dumps({"identity": found._asdict()})


def _run(cell: str, key: str, hours: float | None) -> tuple[bytes, bytes | None]:
    """On a worker: one cell, from JSON to the bytes of its record and its scores."""
    outcome = outcome_of(Planned(Cell(**json.loads(cell)), key), hours, None, None)
    return outcome.record.model_dump_json().encode(), outcome.scores
