"""Units that are places, run with values from elsewhere, one unit at a time: a whole sweep from one recording."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.graph import Feed, Graph
from interpose.graph.moved import moved
from interpose.mediators.base import Unit, sites_of
from interpose.search.ablation import Held
from interpose.search.behaviour import feed_of, logit_difference
from interpose.tasks.base import Pairs
from interpose.trace import Model

_ROWS = "where"
"""What the inputs are called that say where each prompt is patched, by the number of the axis."""


def patch_each(
    model: Model, pairs: Pairs, units: Sequence[Unit], held: Held | None = None
) -> Iterator[Float[Tensor, " examples"]]:
    """Run the clean prompts, then the same with each unit's value from the corrupt prompts, in turn.

    Args:
        model: the model.
        pairs: clean and corrupt prompts with answers; they run in one batch.
        units: the units.
        held: what units hold instead; by default their values on the corrupt prompts.

    Yields:
        logit(answer) - logit(wrong) of every pair: first where nothing is patched, then for each unit.
    """
    values = (held or Held(model, sites_of(units), pairs, "counterfactual", len(pairs)))(pairs)
    recorded: dict[Any, tuple[Unit, Graph, Feed]] = {}
    with model.trace(run=False) as t, t.world("clean", pairs.clean_batch()):
        logit_difference(model, t, pairs).save("m")
    graphs, feeds = [t.graph], [t.feed]
    for unit in units:
        kind = unit.site.axes, unit.head is None, unit.position is None, unit.role is None
        index = unit.index(pairs)
        value = values[unit.site.name][index]
        if kind not in recorded:
            recorded[kind] = (unit, *_record(model, pairs, unit, value))
        first, graph, feed = recorded[kind]
        rows = _row_by_row(unit, pairs)
        was, now = ((), ()) if rows else (first.index(), index)
        graphs.append(moved(graph, (first.site, was), (unit.site, now)))
        feeds.append(feed.with_(None, value=value, **rows))
    for run in model.backend.run_many(graphs, feeds):
        yield run["m"]


def _record(model: Model, pairs: Pairs, unit: Unit, value: Tensor) -> tuple[Graph, Feed]:
    with model.trace(run=False) as t:
        given = t.input("value", value)
        rows = {name: t.input(name, like) for name, like in _row_by_row(unit, pairs).items()}
        index = [rows.get(f"{_ROWS}{axis}", part) for axis, part in enumerate(unit.index(pairs))]
        with t.world("clean", pairs.clean_batch()):
            model.site(unit.site.name)[tuple(index)] = given
            logit_difference(model, t, pairs).save("m")
    return t.graph, feed_of(t.feed, pairs, {})


def _row_by_row(unit: Unit, pairs: Pairs) -> dict[str, Tensor]:
    """What says where each prompt is patched, where that differs: given with the feed, so that one graph serves all."""
    if unit.role is None:
        return {}
    parts = {f"{_ROWS}{axis}": part for axis, part in enumerate(unit.index(pairs)) if not isinstance(part, slice)}
    like = next(part for part in parts.values() if isinstance(part, Tensor))
    return {name: part if isinstance(part, Tensor) else torch.full_like(like, part) for name, part in parts.items()}
