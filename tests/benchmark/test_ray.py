"""Cells on a Ray cluster of this machine are the cells that are run here."""

import builtins
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from interpose.benchmark.cell import Cell
from interpose.benchmark.matrix import Local, bench
from interpose.benchmark.ray_engine import Ray
from interpose.benchmark.record import Record
from interpose.benchmark.store import Store
from interpose.errors import InterposeError
from interpose.search.scores import Scores

METHOD = '''"""Scores that say which process made them."""

import os
from dataclasses import dataclass

import torch

from interpose.methods.base import Method


@dataclass(frozen=True)
class Process(Method):
    """The number of the process, or the end of it."""

    ends: bool = False

    def search(self, model, pairs, mediators):
        """One score a unit."""
        if self.ends:
            os._exit(1)
        return torch.full((len(mediators.units(model, pairs)),), float(os.getpid()))
'''


class Silent:
    """Watches, and remembers what became of the cells."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def begun(self, label: str) -> None: ...

    def stage(self, what: str, done: int, total: int) -> None: ...

    def cells(self, done: int, total: int, last: Record | None) -> None:
        self.seen.append(f"{done} of {total}{f', {last.status}' if last else ''}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Ray]:
    engine = Ray(num_cpus=1, object_store_memory=80 * 2**20)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    numbers = {"examples": 4, "proof": 4}
    made = [Cell("induction-by-hand", "induction", method, **numbers) for method in ("eap", "random")]
    made.append(Cell("induction-by-hand", "induction", "eap", {"stepps": 1}, **numbers))
    return [*made, Cell("./nothing", "induction", "eap", **numbers)]


def said(record: Record) -> dict[str, Any]:
    """All that does not depend on how fast a machine is, without the numbers."""
    return record.model_dump(include={"status", "key", "cell", "units", "weights_hash", "dtype", "versions"})


def numbers(record: Record) -> list[float]:
    """What was measured, besides time and memory."""
    if record.result is None or record.cost is None:
        return []
    areas = record.result.model_dump(include={"areas"})["areas"]
    found = [value for area in areas.values() for each in area.values() for value in each.values()]
    found += [size.signed.mean for size in record.result.curve]
    return [*found, *record.weighted_edges, record.auroc or -1.0, record.cost.forward, record.cost.backward]


@pytest.mark.needs_package("ray")
def test_they_give_what_cells_that_are_run_here_give(cluster: Ray, cells: list[Cell], tmp_path: Path) -> None:
    there, here = Store(tmp_path / "there"), Store(tmp_path / "here")
    watching = Silent()
    spread = bench(cells, there, cluster, None, watching)
    local = bench(cells, here, Local(here.folder), None, Silent())
    assert [record.status for _, record in spread] == ["done", "done", "failed", "failed"]
    for (cell, far), (_, near) in zip(spread, local, strict=True):
        assert said(far) == said(near)
        assert numbers(far) == pytest.approx(numbers(near), abs=1e-5)
        if far.status == "done":
            name = f"{there.name(cell, far.key)}.safetensors"
            far_scores, near_scores = Scores.load(there.folder / name), Scores.load(here.folder / name)
            torch.testing.assert_close(far_scores.values, near_scores.values)
            assert far.auroc is not None
    assert watching.seen[0] == "1 of 4"  # the model that is not there is known before anything runs
    assert [what.partition(", ")[0] for what in watching.seen[1:]] == ["2 of 4", "3 of 4", "4 of 4"]
    again = Silent()
    bench(cells[:2], there, cluster, None, again)
    assert again.seen == ["2 of 2"]


@pytest.mark.needs_package("ray")
def test_a_method_of_ones_own_travels_and_a_worker_that_ends_is_a_cell_that_failed(
    cluster: Ray, cells: list[Cell], tmp_path: Path
) -> None:
    own = [
        Cell("induction-by-hand", "induction", "process", settings, examples=4, proof=4, source=METHOD)
        for settings in ({}, {"ends": True})
    ]
    store = Store(tmp_path)
    (first, done), (_, ended) = bench(own, store, cluster, None, Silent())
    assert (done.status, ended.status) == ("done", "failed")
    scores = Scores.load(store.folder / f"{store.name(first, done.key)}.safetensors")
    assert float(scores.values[0]) != float(os.getpid())
    assert ended.failure is not None
    assert ended.failure.message.startswith("The worker that ran this cell ended: ")


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stock: Callable[..., Any] = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "ray" or name.startswith("ray."):
            raise ImportError(name)
        return stock(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with pytest.raises(InterposeError) as caught:
        Ray()
    assert str(caught.value) == (
        "The engine `ray` needs Ray, which is not installed. Install it with: pip install 'interpose[ray]'"
    )
