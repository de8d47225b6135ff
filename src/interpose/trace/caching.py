"""Activations of many prompts, streamed to disk: what `Model.cache` does.

The sites are recorded once, as one graph, and each batch of prompts is one forward pass that reads them all and stops
after the last. Rows gather until they fill a shard. Batches and shards follow from the prompts and the settings alone,
so that a run that was cut off gives the same files when it goes on.
"""

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from interpose import __version__
from interpose.errors import DataError
from interpose.trace.dataset import Activations
from interpose.trace.lines import user_line
from interpose.trace.options import Options
from interpose.trace.prompt_stream import Fed, Prompts, fed
from interpose.trace.reading import Reading
from interpose.trace.shards import Folder
from interpose.trace.weights import hash_of

if TYPE_CHECKING:
    from interpose.trace.model import Model

_AHEAD = 16
"""At most so many batches are handed to the backend at a time."""


def cache(model: "Model", prompts: Any, sites: Any, out: Any, given: dict[str, Any]) -> Activations:
    """Stream the activations of many prompts to a folder; see `Model.cache`."""
    options = Options.of(given)
    if model.network.training:
        raise DataError(
            f"{user_line()}: the network is in training mode, where dropout would make each run another. "
            "Call model.network.eval() first."
        )
    reading = Reading(model, [sites] if isinstance(sites, str) else list(sites), options)
    job = _Job(model, reading, Folder(Path(out)), options)
    with job.folder.alone():
        job.run(Prompts(prompts, language=model.family is not None))
    return Activations.load(out)


@final
class _Job:
    """One call of `cache`.

    Args:
        model: the model.
        reading: what is read.
        folder: where it goes.
        options: how.

    Raises:
        DataError: the folder was begun with other settings.
    """

    def __init__(self, model: "Model", reading: Reading, folder: Folder, options: Options) -> None:
        """Compare with what the folder was begun with."""
        self.model, self.folder, self.options = model, folder, options
        self._reading = reading
        self._finished: int | None = folder.known.get("prompts")
        self._asked: dict[str, Any] = {
            "sites": list(reading.sites),
            "positions": options.positions,
            "dtype": options.type_name,
            "batch_size": options.batch_size,
            "shard_bytes": options.shard_bytes,
            "weights": hash_of(model.network),
            "versions": _versions(),
        }
        self._check_same(folder.known)
        whatever_order = self._asked | {"sites": sorted(reading.sites)}
        self._key = hashlib.sha256(json.dumps(whatever_order, sort_keys=True).encode()).hexdigest()

    def run(self, prompts: Prompts) -> None:
        """Write what is not there yet, shard by shard.

        Raises:
            DataError: the prompts are not those with which the folder was begun, or there are none.
        """
        about = {"model": self.model.info.name, **self._asked}
        if self._finished is None:
            self.folder.write_index({"complete": False, **about})
        shards = 0
        with _bar(self.options.progress, prompts.total) as tell:
            while self._skip(shards, prompts, tell) or self._write(shards, prompts, tell):
                shards += 1
        if not shards:
            raise DataError(f"{user_line()}: there is no prompt to cache; give at least one.")
        if self._finished not in (None, prompts.count):
            raise self._others(f"it holds {self._finished} prompts, and {prompts.count} are given now")
        made = [self.folder.describe(number) for number in range(shards)]
        tensors = made[0]["tensors"]
        if any(shard.pop("tensors") != tensors for shard in made):
            raise DataError(f"The shards of {self.folder.path} do not fit each other. Cache into another folder.")
        ends = {"prompts": prompts.count, "prompts_hash": prompts.hash, "rows": sum(shard["rows"] for shard in made)}
        self.folder.write_index({"complete": True, **about, **ends, "tensors": tensors, "shards": made})

    def _check_same(self, known: dict[str, Any]) -> None:
        changed = []
        for name, now in self._asked.items():
            was = known.get(name)
            same = was == now if name != "sites" else sorted(was or ()) == sorted(now)
            if known and not same:
                what = f"{name} was {was!r} and is {now!r}"
                changed.append(
                    f"the weights are others (then {known.get('model')}, now {self.model.info.name})"
                    if name == "weights"
                    else what
                )
        if changed:
            raise DataError(
                f"{user_line()}: {self.folder.path} was begun with other settings: {'; '.join(changed)}. Give the same "
                "ones to go on, or another folder."
            )

    def _others(self, why: str) -> DataError:
        return DataError(
            f"{user_line()}: {self.folder.path} was begun with other prompts: {why}. Give the same ones in the same "
            "order to go on, or another folder."
        )

    def _skip(self, number: int, prompts: Prompts, tell: Callable[[int, bool], None]) -> bool:
        """Pass over the prompts of a shard that is there; False where it is not."""
        found = self.folder.shard(number)
        if found is None or found.get("asked") != self._key or found.get("first") != str(prompts.count):
            return False
        first, stop = prompts.count, int(found["stop"])
        start = prompts.take(1)
        while prompts.count < stop and prompts.take(min(1024, stop - prompts.count)):
            pass
        if prompts.hash != found["hash"]:
            raise self._others(f"something among prompts {first} to {stop - 1} is another")
        tokens = self._reading.about(first, fed(self.model, start, first)).get("tokens")
        if tokens is not None and not torch.equal(tokens, self.folder.read(number, "tokens")[: len(tokens)]):
            raise self._others(f"the tokenizer cuts prompt {first} into other tokens")
        if found["ends"] == "yes":
            self._finished = stop
        tell(prompts.count, True)
        return True

    def _write(self, number: int, prompts: Prompts, tell: Callable[[int, bool], None]) -> bool:
        """Run the network until a shard is full, and write it; False where the prompts have ended."""
        first, limit, size, ahead = prompts.count, self.options.shard_bytes, 0, 1
        parts: dict[str, list[Tensor]] = defaultdict(list)
        while size < limit:
            batches = list(self._batches(prompts, ahead))
            if self._finished is not None and prompts.count > self._finished:
                raise self._others(f"it holds {self._finished} prompts, and more are given now")
            if not batches:
                break
            size_before = size
            for rows in self._reading.rows(batches):
                for name, value in rows.items():
                    parts[name].append(value)
                    size += value.nbytes
                tell(int(rows["prompt"][-1]) + 1, False)
            # As many batches as still fit, so that a shard depends on its own prompts alone.
            ahead = max(1, min(_AHEAD, (limit - size) * len(batches) // max(1, size - size_before)))
        if not parts:
            return False
        about = {"interpose": "activations", "asked": self._key, "hash": prompts.hash}
        about["ends"] = "yes" if size < limit else "no"
        self.folder.write_shard(number, parts, about | {"first": str(first), "stop": str(prompts.count)})
        return True

    def _batches(self, prompts: Prompts, number: int) -> Iterator[tuple[int, Fed]]:
        for _ in range(number):
            first = prompts.count
            taken = prompts.take(self.options.batch_size)
            if not taken:
                return
            yield first, fed(self.model, taken, first)


def _versions() -> dict[str, str]:
    found = {"interpose": __version__, "torch": torch.__version__}
    try:
        return {**found, "transformers": version("transformers")}
    except PackageNotFoundError:
        return found


@contextmanager
def _bar(wanted: bool, total: int | None) -> Iterator[Callable[[int, bool], None]]:
    """A progress bar on standard error, where that is a terminal; told how many prompts are done, and if skipped."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("prompts", total=total)

        def tell(done: int, skipped: bool) -> None:
            # What is skipped says nothing of how long the rest takes.
            (progress.reset if skipped else progress.update)(task, completed=done)

        yield tell
