"""One call of the network: what happens where its tapped modules are reached."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from interpose.engine.lenses import RAW, Lens, lens
from interpose.engine.plan import Anchor, WorldPlan
from interpose.engine.values import Values
from interpose.errors import RunError
from interpose.graph.nodes import Node, Read, Write
from interpose.models import Place

_HEAD_AXES = {"attn.k": 2, "attn.v": 2, "attn.key": 1, "attn.value": 1}


class World:
    """The state of one call of the network.

    Args:
        values: the run's values.
        plan: what happens in this call.
    """

    def __init__(self, values: Values, plan: WorldPlan) -> None:
        """Start with no site reached."""
        self.values, self.plan = values, plan
        self.last_write: Node | None = None
        self._calls: dict[Anchor, int] = {}
        self._beside: dict[Place, Tensor] = {}
        self._left = {tap.site for taps in plan.taps.values() for tap in taps}

    @property
    def finished(self) -> bool:
        """Every site has been reached and nothing later is wanted."""
        return self.plan.stoppable and not self._left

    @property
    def missed(self) -> list[str]:
        """The sites that were not reached."""
        return sorted(str(site) for site in self._left)

    def reach(self, anchor: Anchor, raw: Any) -> Any:
        """A tapped side of a module was reached.

        Args:
            anchor: module and side.
            raw: what was found there.

        Returns:
            what goes on from here: `raw`, changed by the writes.

        Raises:
            RunError: the module runs several times and the site does not say which call it means.
        """
        call = self._calls[anchor] = self._calls.get(anchor, -1) + 1
        for tap in self.plan.taps.get(anchor, ()):
            if tap.site.call is None and call > 0:
                raise RunError(
                    f"{self._node(tap.nodes[0]).at}: {tap.site} is reached more than once in one pass of the model. "
                    "Say which call you mean: .call(0), .call(1), ..."
                )
            if tap.site.call in (None, call):
                raw = self._apply(tap.nodes, self._lens(tap.place), raw)
                self._left.discard(tap.site)
        for place in self.plan.captures.get(anchor, ()):
            self._beside[place] = self._lens(place).get(raw)
        return raw

    def attention_tap(self, module: str) -> Callable[[str, Tensor], tuple[Tensor, bool]]:
        """What one attention module calls with each site's name and value; gives the value and whether it was written."""
        taps = {tap.place.form: tap for tap in self.plan.taps[module, "attention"]}

        def tap(form: str, value: Tensor) -> tuple[Tensor, bool]:
            if form not in taps:
                return value, False
            self._left.discard(taps[form].site)
            after = self._apply(taps[form].nodes, RAW, value)
            return after, after is not value

        return tap

    def _node(self, index: int) -> Node:
        return self.values.plan.graph.nodes[index]

    def _lens(self, place: Place) -> Lens:
        if place.form == "raw":
            return RAW
        beside = {role: self._beside[other] for role, other in place.also}
        return lens(place, beside, self.values.network.get_parameter)

    def _apply(self, nodes: tuple[int, ...], through: Lens, raw: Any) -> Any:
        original = current = through.get(raw)
        for index in nodes:
            node = self._node(index)
            if isinstance(node, Read):
                current = self.values.as_target(index, current)
                self.values.set(index, current)
            elif isinstance(node, Write):
                current = self._written(index, node, current)
                self.last_write = node
        return raw if current is original else through.put(raw, original, current)

    def _written(self, index: int, node: Write, current: Any) -> Any:
        if not self.values.known(node.value.index):
            raise RunError(
                f"{node.at}: {node.site} is written with a value that is made later in the same pass. "
                "Read it in another world, or write at a later site."
            )
        value = self.values.take(index, node.value.index)
        if not (isinstance(current, Tensor) and isinstance(value, Tensor)):
            return value
        value = value.to(current.dtype)
        if value.shape == current.shape or _gives_each_query_head_its_own(node, value, current):
            return value
        try:
            return value.expand(current.shape)
        except RuntimeError:
            raise RunError(
                f"{node.at}: {node.site} has shape {tuple(current.shape)} and cannot take a value of shape "
                f"{tuple(value.shape)}."
            ) from None


def _gives_each_query_head_its_own(node: Write, value: Tensor, current: Tensor) -> bool:
    """Keys and values may be written with one head a query head in place of one a key/value head."""
    axis = None if node.site.part else _HEAD_AXES.get(node.site.local)
    if axis is None or value.ndim != current.ndim or value.shape[axis] % current.shape[axis]:
        return False
    shape = list(current.shape)
    shape[axis] = value.shape[axis]
    return torch.Size(shape) == value.shape
