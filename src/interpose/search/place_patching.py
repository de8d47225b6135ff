"""Units that are places, run with values from elsewhere, one unit at a time: a whole sweep from one recording."""

from collections.abc import Iterator, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from interpose.graph import Feed, Graph
from interpose.graph.moved import moved
from interpose.mediators.base import Unit, sites_of
from interpose.search.ablation import Held
from interpose.search.behaviour import feed_of, logit_difference
from interpose.tasks.base import Pairs
from interpose.trace import Model


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
        kind = unit.site.axes, unit.head is None, unit.position is None
        value = values[unit.site.name][unit.index()]
        if kind not in recorded:
            recorded[kind] = (unit, *_record(model, pairs, unit, value))
        first, graph, feed = recorded[kind]
        graphs.append(moved(graph, (first.site, first.index()), (unit.site, unit.index())))
        feeds.append(feed.with_(value=value))
    for run in model.backend.run_many(graphs, feeds):
        yield run["m"]


def _record(model: Model, pairs: Pairs, unit: Unit, value: Tensor) -> tuple[Graph, Feed]:
    with model.trace(run=False) as t:
        given = t.input("value", value)
        with t.world("clean", pairs.clean_batch()):
            model.site(unit.site.name)[unit.index()] = given
            logit_difference(model, t, pairs).save("m")
    return t.graph, feed_of(t.feed, pairs, {})
