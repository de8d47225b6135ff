"""One call of the network: what happens where its tapped modules are reached."""

from typing import Any, final

from torch import Size, Tensor

from interpose.engine.matrices import matrix_of
from interpose.engine.values import Values
from interpose.engine.world_plan import LeftOut, Tap, WorldPlan
from interpose.errors import RunError, ShapeError
from interpose.graph.nodes import Node, Skip, Write
from interpose.graph.places import Place
from interpose.graph.sites import Site

_HEAD_AXES = {"attn.k": 2, "attn.v": 2, "attn.key": 1, "attn.value": 1}


@final
class World:
    """The state of one call of the network.

    Attributes:
        done: every site has been reached and nothing later is wanted.
        last_write: the write that was carried out last, to be named if the network fails after it.
        split: the layers where a write gave each query head its own key or value.

    Args:
        values: the run's values.
        plan: what happens in this call.
        anchors: how many tapped sides of modules there are.
    """

    def __init__(self, values: Values, plan: WorldPlan, anchors: int) -> None:
        """Start with no site reached."""
        self.values, self.plan = values, plan
        self.done = False
        self.last_write: Node | None = None
        self.split: set[int | None] = set()
        self._calls = [0] * anchors
        self._copies, self._keep = values.copies, values.keep
        self._left_out: set[int] = set()
        self._beside: dict[Place, Any] = {}
        self._stand_ins: dict[int, Any] = {}
        self._wanted = dict(plan.wanted)
        self._missing = set(range(len(plan.sites)))

    @property
    def missed(self) -> list[str]:
        """The sites that were not reached."""
        return sorted(str(self.plan.sites[number]) for number in self._missing)

    def beside(self, place: Place) -> Any:
        """What was captured at a place that a form needs."""
        return self._beside[place]

    def matrix(self, place: Place, given: Tensor) -> Tensor:
        """What the output projection of a place multiplies its input by, given such an input."""
        module = self.values.network.get_submodule(place.weight)
        return matrix_of(module, place.weight, given, place.transposed)

    def reach(self, anchor: int, taps: tuple[Tap, ...], captures: tuple[tuple[Place, Any], ...], raw: Any) -> Any:
        """A tapped side of a module was reached.

        Args:
            anchor: which side of which module, as a number.
            taps: the sites there.
            captures: the places there that other sites need, with their lenses.
            raw: what was found there.

        Returns:
            what goes on from here: `raw`, changed by the writes.

        Raises:
            RunError: the module runs several times and the site does not say which call it means.
        """
        call = self._calls[anchor]
        self._calls[anchor] = call + 1
        for tap in taps:
            wanted = tap.site.call
            if wanted is None and call:
                raise RunError(
                    f"{self._node(tap.steps[0][0]).at}: {tap.site} is reached more than once in one pass of the model. "
                    "Say which call you mean: .call(0), .call(1), ..."
                )
            if wanted is None or wanted == call:
                raw = self.apply(tap, raw)
        for place, through in captures:
            self._beside[place] = through.get(raw, self)
        return raw

    def reach_one(self, anchor: int, tap: Tap, raw: Any) -> Any:
        """As `reach`, where the side has one site, and nothing else needs what is there."""
        if self._calls[anchor]:
            return self.reach(anchor, (tap,), (), raw)
        self._calls[anchor] = 1
        if not tap.kept or self._copies:
            return self.apply(tap, raw)
        self._missing.discard(tap.number)
        if not self._missing:
            self.done = self.plan.stoppable
        self._keep(tap.kept, tap.lens.get(raw, self))
        return raw

    def apply(self, tap: Tap, raw: Any) -> Any:
        """Carry out the reads and writes of a site.

        Args:
            tap: the site.
            raw: what was found where it lives.

        Returns:
            `raw` itself where nothing was written, else what goes on in its place.
        """
        self._reach(tap.number)
        original = current = tap.lens.get(raw, self)
        for index, write in tap.steps:
            if write is None:
                current = self.values.read(index, current)
            else:
                current = self._written(write, current)
                self.last_write = write
        for _, place in tap.place.also:
            self._wanted[place] -= 1
            if not self._wanted[place]:
                del self._beside[place]
        return raw if current is original else tap.lens.put(raw, original, current)

    def changes(self, tap: Tap) -> bool:
        """Whether a site is written, or differentiated by, so that what goes on from it is another tensor."""
        targets = self.values.plan.targets
        return any(write is not None or index in targets for index, write in tap.steps)

    def skipped(self, module: LeftOut) -> Any:
        """What stands for the result of a module that is not run.

        Raises:
            RunError: it is made later in the same pass.
        """
        self._reach(module.number)
        number = module.number
        if number in self._left_out:
            raise RunError(
                f"{module.node.at}: {module.node.site} is skipped and reached more than once in one pass of the model. "
                "Write the output of each call instead: .call(0).output = value."
            )
        value = self._stand_ins.pop(number) if number in self._stand_ins else self._taken(module.node)
        if module.last:
            self._left_out.add(number)
        else:
            self._stand_ins[number] = value
        self.last_write = module.node
        return (value, None) if module.form == "first" else value

    def _reach(self, number: int) -> None:
        self._missing.discard(number)
        if not self._missing:
            self.done = self.plan.stoppable

    def _node(self, index: int) -> Node:
        return self.values.plan.graph.nodes[index]

    def _taken(self, node: Write | Skip) -> Any:
        if self.values.known(node.value.index):
            return self.values.take(node.value.index)
        what = "written" if isinstance(node, Write) else "skipped"
        raise RunError(
            f"{node.at}: {node.site} is {what} with a value that is made later in the same pass. "
            "Read it in another world, or write at a later site."
        )

    def _written(self, node: Write, current: Any) -> Any:
        value = self._taken(node)
        if not isinstance(value, Tensor):
            if not node.site.part:
                raise RunError(f"{node.at}: {node.site} is written with a {type(value).__name__}, which is no tensor.")
            return value
        if not isinstance(current, Tensor):
            if current is None or node.site.part == "output":
                return value
            raise ShapeError(f"{node.at}: {node.site} is a {type(current).__name__}; write an element of it: [0] = ...")
        if value.dtype != current.dtype or value.device != current.device:
            value = value.to(current)
        if value.shape == current.shape:
            return value
        if gives_each_query_head_its_own(node.site, value.shape, current.shape):
            self.split.add(node.site.layer)
            return value
        try:
            return value.expand(current.shape).clone()
        except RuntimeError:
            raise ShapeError(
                f"{node.at}: {node.site} has shape {tuple(current.shape)} and cannot take a value of shape "
                f"{tuple(value.shape)}."
            ) from None


def gives_each_query_head_its_own(site: Site, value: Size, current: Size) -> bool:
    """Whether a site is written with one head a query head in place of one a key/value head, as keys and values may be.

    Args:
        site: the site.
        value: the shape of what is written.
        current: the shape of what is there.
    """
    axis = None if site.part else _HEAD_AXES.get(site.local)
    if axis is None or len(value) != len(current) or value[axis] % current[axis]:
        return False
    return value == (*current[:axis], value[axis], *current[axis + 1 :])
