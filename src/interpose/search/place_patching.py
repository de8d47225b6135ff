"""Units that are places, run with values from elsewhere, one unit at a time: a whole sweep from one recording."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.graph import Batch, Feed, Graph
from interpose.graph.moved import moved
from interpose.mediators.base import Unit, sites_of
from interpose.search.ablation import Held
from interpose.search.behaviour import feed_of, logit_difference
from interpose.tasks.base import Pairs
from interpose.trace import Model

Effects = Iterator[Float[Tensor, " examples"]]
"""logit(answer) - logit(wrong) of every pair, for each run."""


def patch_each(model: Model, pairs: Pairs, units: Sequence[Unit], held: Held | None = None) -> Effects:
    """Run the clean prompts, then the same with each unit's value from the corrupt prompts, in turn.

    Args:
        model: the model.
        pairs: clean and corrupt prompts with answers; they run in one batch.
        units: the units.
        held: what units hold instead; by default their values on the corrupt prompts.

    Yields:
        logit(answer) - logit(wrong) of every pair: first where nothing is patched, then for each unit.
    """
    values = values_of(model, pairs.corrupt_batch(), units) if held is None else held(pairs)
    yield from run_with(model, pairs, [(unit,) for unit in units], values, pairs.clean_batch())


def restore_each(
    model: Model, pairs: Pairs, groups: Sequence[Sequence[Unit]], noise: Float[Tensor, "n pos width"] | None = None
) -> Effects:
    """Run the corrupt prompts, then the same with each group of units as on the clean prompts, in turn.

    Args:
        model: the model.
        pairs: clean and corrupt prompts with answers; they run in one batch.
        groups: units that are restored together: the same part of one layer after another.
        noise: what is added to the embedding of the clean prompts, which then are run in place of the corrupt ones.

    Yields:
        logit(answer) - logit(wrong) of every pair: first where nothing is restored, then for each group.
    """
    values = values_of(model, pairs.clean_batch(), [unit for group in groups for unit in group])
    batch = pairs.corrupt_batch() if noise is None else pairs.clean_batch()
    yield from run_with(model, pairs, groups, values, batch, noise)


def values_of(model: Model, batch: Batch, units: Sequence[Unit]) -> Mapping[str, Tensor]:
    """What is found at the sites of some units, by the name of the site."""
    with model.trace(run=False) as t, t.world("source", batch):
        for site in sites_of(units):
            model.site(site.name).save(site.name)
    return next(model.backend.run_many([t.graph], [t.feed]))


def run_with(
    model: Model,
    pairs: Pairs,
    groups: Sequence[Sequence[Unit]],
    values: Mapping[str, Tensor],
    batch: Batch,
    noise: Float[Tensor, "n pos width"] | None = None,
) -> Effects:
    """Run some prompts, then the same with each group of units given other values, in turn.

    Args:
        model: the model.
        pairs: whose answers are compared, and whose roles say where units lie.
        groups: units that are given their values together: the same part of one layer after another.
        values: by the name of a site, the values that are put there, from `values_of`.
        batch: the prompts.
        noise: what is added to their embedding in every run.

    Yields:
        logit(answer) - logit(wrong) of every pair: first where nothing is replaced, then for each group.
    """
    recordings = _Recordings(model, pairs, batch, noise)
    runs = [recordings.of(group, values) for group in [(), *groups]]
    for run in model.backend.run_many([graph for graph, _ in runs], [feed for _, feed in runs]):
        yield run["m"]


@final
class _Recordings:
    """Blocks that put values into units: one of each kind is recorded, and moved to every unit of that kind."""

    def __init__(self, model: Model, pairs: Pairs, batch: Batch, noise: Tensor | None) -> None:
        self._model, self._pairs, self._batch, self._noise = model, pairs, batch, noise
        self._recorded: dict[Any, tuple[Sequence[Unit], Graph, Feed]] = {}

    def of(self, units: Sequence[Unit], values: Mapping[str, Tensor]) -> tuple[Graph, Feed]:
        """The graph for some units, and what it is given."""
        kind = tuple(_kind(unit) for unit in units)
        tensors = self._tensors(units, values)
        if kind not in self._recorded:
            self._recorded[kind] = (units, *self._record(units, tensors))
        first, graph, feed = self._recorded[kind]
        ways = list(zip(first, units, strict=True))
        # The way up is free from the top, the way down from the bottom.
        for old, new in reversed(ways) if units and _layer(units[0]) > _layer(first[0]) else ways:
            was, now = ((), ()) if new.role is not None else (old.index(), new.index())
            graph = moved(graph, (old.site, was), (new.site, now))
        return graph, feed.with_(None, **tensors)

    def _tensors(self, units: Sequence[Unit], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for number, unit in enumerate(units):
            found[f"value{number}"] = values[unit.site.name][unit.index(self._pairs)]
            found |= self._row_by_row(unit)
        return found

    def _row_by_row(self, unit: Unit) -> dict[str, Tensor]:
        """What says where each prompt is patched, where that differs: given, so that one graph serves all."""
        if unit.role is None:
            return {}
        parts = {
            f"where{axis}": part for axis, part in enumerate(unit.index(self._pairs)) if not isinstance(part, slice)
        }
        like = self._pairs.roles[unit.role]
        return {name: part if isinstance(part, Tensor) else torch.full_like(like, part) for name, part in parts.items()}

    def _record(self, units: Sequence[Unit], tensors: Mapping[str, Tensor]) -> tuple[Graph, Feed]:
        model = self._model
        with model.trace(run=False) as t:
            given = {name: t.input(name, like) for name, like in tensors.items()}
            noise = None if self._noise is None else t.input("noise", self._noise)
            with t.world("prompts", self._batch):
                if noise is not None:
                    model.embed[:, :] += noise
                for number, unit in enumerate(units):
                    index = [given.get(f"where{axis}", part) for axis, part in enumerate(unit.index(self._pairs))]
                    model.site(unit.site.name)[tuple(index)] = given[f"value{number}"]
                logit_difference(model, t, self._pairs).save("m")
        return t.graph, feed_of(t.feed, self._pairs, {})


def _kind(unit: Unit) -> Any:
    """Units of one kind differ only in what a graph that is moved says otherwise."""
    return unit.site.axes, unit.site.layer is None, unit.head is None, unit.position is None, unit.role is None


def _layer(unit: Unit) -> int:
    return -1 if unit.site.layer is None else unit.site.layer
