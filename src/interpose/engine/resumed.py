"""One pass of a network that does only what its rows need: rows join at a layer, positions begin behind a prefix.

Nothing of a network's forward is written anew. Layers that no row needs hand on what they are given, a layer where rows
join gets them behind those that are there already, and all else is the stock forward of the view.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from interpose.engine.attention import Attention
from interpose.engine.counts import Counts
from interpose.engine.matrices import matrix_of
from interpose.engine.taps import TappedView
from interpose.engine.view import Around, Forward
from interpose.engine.world_plan import Tap, Where, WorldPlan, world_plan
from interpose.errors import RunError
from interpose.graph.arguments import Ref
from interpose.graph.nodes import Graph, Read, World, Write
from interpose.graph.places import Dims, Place, Table
from interpose.graph.sites import Site

_PARTS = frozenset(["blocks", "fused", "groups"])
"""Forms of which a module's output has several."""

Happens = Callable[[Site, Tensor], Tensor]
"""Given a site and its value for all rows, the value to go on with; the same object where nothing is changed."""


@dataclass(frozen=True)
class Stock:
    """A network, and what is known of its kind.

    Attributes:
        network: the network; it is never changed.
        table: what its parts are called.
        dims: its sizes.
        attention: how its library lets attention be tapped, and caches be given.
        device: where it is.
        counts: told of every pass.
    """

    network: torch.nn.Module
    table: Table
    dims: Dims
    attention: Attention
    device: torch.device
    counts: Counts

    def layer(self, index: int) -> tuple[str, str]:
        """The path of a layer, and the form of what it returns; see `Table.skips`."""
        ((path, form),) = self.table.skips(Site(f"layers.{index}.output"))
        return path, form

    def attention_of(self, layer: int) -> str | None:
        """The path of a layer's attention module; None where its kernel cannot be another."""
        place = self.table.place(Site(f"layers.{layer}.attn.query"), self.dims)
        return place.module if place.side == "attention" else None

    def last_logits(self, positions: int | None) -> dict[str, int]:
        """The argument that asks for the logits of some last positions only; None for all."""
        takes = "logits_to_keep" in signature(type(self.network).forward).parameters
        return {"logits_to_keep": positions} if takes and positions is not None else {}


@runtime_checkable
class Joining(Protocol):
    """What happens where a layer is reached."""

    @property
    def whole(self) -> bool:
        """The pass goes on to the end, also where no site is left."""
        ...

    @property
    def kernels(self) -> Mapping[str, Callable[..., Any]]:
        """For attention modules by path, what stands in for their kernel."""
        ...

    def at(self, layer: int, hidden: Tensor) -> Tensor | None:
        """The rows that a layer is given in place of those that come from the one before; None if it is not run."""
        ...

    def beside(self, layer: int, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """What else the layer is given, for those rows."""
        ...


def plan_of(stock: Stock, sites: Mapping[Site, bool]) -> WorldPlan:
    """A pass in which some sites are reached; true for those that are written."""
    nodes: list[Read | Write] = []
    for site, written in sites.items():
        nodes.append(Write(site, "main", Ref(0)) if written else Read(site, "main"))
    graph = Graph.recorded((World("main"),), tuple(nodes))
    where = Where({site: stock.table.place(site, stock.dims) for site in sites})
    return world_plan(graph, "main", range(len(nodes)), where, gradients=False)


def run(stock: Stock, plan: WorldPlan, happens: Happens, joining: Joining, kwargs: Mapping[str, Any]) -> None:
    """Run a pass.

    Args:
        stock: the network.
        plan: the sites that are reached.
        happens: called at each.
        joining: called at each layer.
        kwargs: what the network is given.

    Raises:
        RunError: a site was not reached.
    """
    # The parts of a view refer to one another, so that they outlive the pass; what it works on must not.
    held, around = [joining], {}
    for index in range(stock.dims.layers):
        path, form = stock.layer(index)
        around[path] = _around(index, form, held)
    view = TappedView(stock.network, plan, stock.attention, around, joining.kernels)
    reached = Reached(stock.network, plan, view.anchors, happens, joining.whole)
    stock.counts.one_forward()
    try:
        view.call(reached, (), dict(kwargs))
    finally:
        held.clear()
    if reached.missing:
        raise RunError(f"the pass did not reach {', '.join(map(str, reached.missing))}")


def _around(index: int, form: str, held: list[Joining]) -> Around:
    def around(stock: Forward) -> Forward:
        def forward(*args: Any, **kwargs: Any) -> Any:
            (joining,), named = held, not args
            hidden = kwargs["hidden_states"] if named else args[0]
            rows = joining.at(index, hidden)
            if rows is None:
                return hidden if form == "tensor" else (hidden, None)
            others = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            given = joining.beside(index, (*args[1:], *others.values()))
            count = len(args) - 1 if args else 0
            others = dict(zip(others, given[count:], strict=True))
            return stock(hidden_states=rows, **others) if named else stock(rows, *given[:count], **others)

        return forward

    return around


@final
class Reached:
    """What a view asks of a run, where all that happens at a site is one function.

    Attributes:
        done: every site has been reached.
        split: the layers where a write gave each query head its own key or value.
    """

    def __init__(self, network: torch.nn.Module, plan: WorldPlan, anchors: int, happens: Happens, whole: bool) -> None:
        """Start with no site reached."""
        self.done, self.split = False, set[int | None]()
        self.missing = set(plan.sites)
        self._network, self._happens, self._whole = network, happens, whole
        self._calls = [0] * anchors
        self._beside: dict[Place, Any] = {}

    def beside(self, place: Place) -> Any:
        """What was captured at a place that a form needs."""
        return self._beside[place]

    def matrix(self, place: Place, given: Tensor) -> Tensor:
        """What the output projection of a place multiplies its input by, given such an input."""
        return matrix_of(self._network.get_submodule(place.weight), place.weight, given, place.transposed)

    def reach(self, anchor: int, taps: tuple[Tap, ...], captures: tuple[tuple[Place, Any], ...], raw: Any) -> Any:
        """A tapped side of a module was reached; see `interpose.engine.world.World.reach`."""
        self._calls[anchor] += 1
        if self._calls[anchor] > 1:
            raise RunError("a module is called more than once in one pass")
        # Parts of one projection do not change each other, and a write may change the shape that the others have.
        parts = {tap.number: tap.lens.get(raw, self) for tap in taps if tap.place.form in _PARTS}
        for tap in taps:
            raw = self._apply(tap, raw, parts[tap.number] if tap.number in parts else tap.lens.get(raw, self))
        for place, through in captures:
            self._beside[place] = through.get(raw, self)
        return raw

    def reach_one(self, anchor: int, tap: Tap, raw: Any) -> Any:
        """As `reach`, for one site."""
        return self.reach(anchor, (tap,), (), raw)

    def apply(self, tap: Tap, raw: Any) -> Any:
        """Let happen what happens at a site; gives back what goes on in place of `raw`."""
        return self._apply(tap, raw, tap.lens.get(raw, self))

    def _apply(self, tap: Tap, raw: Any, before: Tensor) -> Any:
        self.missing.discard(tap.site)
        self.done = not self.missing and not self._whole
        after = self._happens(tap.site, before)
        if after is before:
            return raw
        if after.shape != before.shape:
            self.split.add(tap.site.layer)
        return tap.lens.put(raw, before, after)

    def changes(self, tap: Tap) -> bool:  # noqa: ARG002
        """Whether what goes on from a site is another tensor; asked only where it is."""
        return True

    def skipped(self, module: Any) -> Any:
        """No module is skipped by name in such a pass."""
        raise NotImplementedError(module)


def repeated(value: Any, of: int, rows: int) -> Any:
    """Something for `of` rows, for `rows`: each is there again and again, in the same order."""
    if isinstance(value, Tensor) and of != rows and value.ndim > 1 and value.shape[0] == of:
        return value.expand(rows, *value.shape[1:]) if of == 1 else value.repeat(rows // of, *[1] * (value.ndim - 1))
    if type(value) in (tuple, list):
        return type(value)([repeated(item, of, rows) for item in value])
    return value


def repeats(value: Any, of: int) -> bool:
    """Whether something for `of` rows is the same again for more."""
    if isinstance(value, Tensor):
        return value.ndim > 1 and value.shape[0] in (1, of)
    return all(repeats(item, of) for item in value) if type(value) in (tuple, list) else True
