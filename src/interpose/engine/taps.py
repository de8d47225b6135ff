"""From a world's plan to a view of the network: what stands around the forward of each tapped module."""

import inspect
from collections.abc import Callable, Mapping, Set
from functools import partial
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from interpose.engine.attention import Attention, Tap as AttentionTap, tapped
from interpose.engine.inline import InlineTap
from interpose.engine.lenses import lens
from interpose.engine.view import Around, Change, Forward, View
from interpose.engine.world_plan import Anchor, LeftOut, Tap, WorldPlan
from interpose.errors import RunError
from interpose.graph.places import Place


class Finished(BaseException):
    """Raised inside a forward pass when nothing after this point is wanted; never leaves the engine."""


@runtime_checkable
class Passing(Protocol):
    """One call of the network, as a view sees it."""

    @property
    def done(self) -> bool:
        """Nothing later is wanted."""
        ...

    @property
    def split(self) -> Set[int | None]:
        """The layers where a write gave each query head its own key or value."""
        ...

    def reach(self, anchor: int, taps: tuple[Tap, ...], captures: tuple[tuple[Place, Any], ...], raw: Any) -> Any:
        """A tapped side of a module was reached; gives what goes on from here in place of `raw`."""
        ...

    def reach_one(self, anchor: int, tap: Tap, raw: Any) -> Any:
        """As `reach`, where the side has one site, and nothing else needs what is there."""
        ...

    def apply(self, tap: Tap, raw: Any) -> Any:
        """Do what is done at one site; gives what goes on in place of `raw`, which is `raw` where nothing changed."""
        ...

    def changes(self, tap: Tap) -> bool:
        """Whether a site is written, or differentiated by."""
        ...

    def skipped(self, module: LeftOut) -> Any:
        """What stands for the result of a module that is not run."""
        ...


@final
class TappedView:
    """A kept view of the network for one world of one plan. One run uses it at a time.

    Attributes:
        world: the run that uses it now, or None.
        anchors: how many tapped sides of modules there are.

    Args:
        network: the network; it is not changed.
        plan: what happens in the world.
        attention: how the network's library lets attention be tapped, or None.
        around: for modules by path, what else stands around their forward, outside of all that the plan says.
        kernels: for attention modules by path that the plan does not tap, what stands in for their kernel.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        plan: WorldPlan,
        attention: Attention | None,
        around: Mapping[str, Around] | None = None,
        kernels: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        """Make the view."""
        self._around, self._kernels = around or {}, kernels or {}
        self.world: Passing | None = None
        self._plan, self._attention = plan, attention
        sides: dict[str, list[str]] = {}
        for module, side in dict.fromkeys([*plan.taps, *plan.captures]):
            sides.setdefault(module, []).append(side)
        self._numbers = {anchor: number for number, anchor in enumerate(dict.fromkeys([*plan.taps, *plan.captures]))}
        self.anchors = len(self._numbers)
        self._inline = any(side == "inline" for _, side in self._numbers)
        self._paused = False
        sides |= {path: [] for path in (*plan.skips, *self._around, *self._kernels) if path not in sides}
        changes = {path: self._change(network.get_submodule(path), path, found) for path, found in sides.items()}
        self._view = View(network, changes)

    def fresh(self) -> bool:
        """Whether it still shows the network as it is."""
        return self._view.fresh()

    def call(self, world: Passing, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the network for a world.

        Args:
            world: the run.
            args: positional arguments of the network.
            kwargs: keyword arguments of the network.

        Returns:
            what the network returns; None where the run ended before.
        """
        self.world = world
        try:
            return self._view.root(*args, **kwargs)
        except Finished:
            return None
        finally:
            self.world = None

    def _change(self, module: torch.nn.Module, path: str, sides: list[str]) -> Change:
        before = [side for side in ("inputs", "input") if side in sides]
        around = [self._left_out(path)] if path in self._plan.skips else []
        around += [self._around_inline(path)] if self._plan.taps.get((path, "inline")) else []
        around += [self._around_input(module, path, before)] if before else []
        around += [self._around[path]] if path in self._around else []
        return Change(
            prepare=self._preparation(path, sides),
            inside=_around_one_another(around),
            outside=self._reach((path, "output")),
        )

    def _preparation(self, path: str, sides: list[str]) -> Callable[[torch.nn.Module], None] | None:
        if "attention" in sides:
            return lambda copy: self._tap_attention(path, copy)
        if path in self._kernels and self._attention is not None:
            return partial(self._attention.install, function=self._kernels[path])
        return self._attention.widen if "inline" in sides and self._attention is not None else None

    def _left_out(self, path: str) -> Around:
        module = self._plan.skips[path]

        def instead(*_: Any, **__: Any) -> Any:
            assert self.world is not None
            return self.world.skipped(module)

        return lambda _: instead

    def _reach(self, anchor: Anchor) -> Callable[[Any], Any]:
        """What is done on a side of a module; it raises Finished where nothing after it is wanted."""
        number, taps = self._numbers.get(anchor, -1), self._plan.taps.get(anchor, ())
        captures = tuple((place, lens(place)) for place in self._plan.captures.get(anchor, ()))
        tap = taps[0] if len(taps) == 1 and not captures and taps[0].site.call is None else None

        def reach(raw: Any) -> Any:
            world: World = self.world  # type: ignore[assignment]
            if tap is not None:
                raw = world.reach_one(number, tap, raw)
            elif number >= 0:
                raw = world.reach(number, taps, captures, raw)
            if world.done:
                raise Finished
            return raw

        return self._apart(reach)

    def _apart(self, reach: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The same, where what is computed there is not to be taken for an attention's own products."""
        if not self._inline:
            return reach

        def paused(raw: Any) -> Any:
            before, self._paused = self._paused, True
            try:
                return reach(raw)
            finally:
                self._paused = before

        return paused

    def _around_input(self, module: torch.nn.Module, path: str, sides: list[str]) -> Around:
        reach_all = self._reach((path, "inputs")) if "inputs" in sides else None
        reach = self._reach((path, "input")) if "input" in sides else None
        names = list(inspect.signature(type(module).forward).parameters)[1:]

        def around(stock: Forward) -> Forward:
            def forward(*args: Any, **kwargs: Any) -> Any:
                if reach_all is not None:
                    args, kwargs = reach_all((args, kwargs))
                if reach is not None:
                    args, kwargs = _with_input(reach, names, args, kwargs)
                return stock(*args, **kwargs)

            return forward

        return around

    def _tap_attention(self, path: str, copy: torch.nn.Module) -> None:
        if self._attention is None:
            raise RunError(
                f"The attention of {path!r} cannot be looked into: it is not an attention module of the "
                "transformers library. "
                "Read attn.q, attn.k, attn.v or attn.z, or its own modules by path."
            )
        at, needs_scores = self._attention_tap((path, "attention"))
        self._attention.install(copy, tapped(at, needs_scores))

    def _attention_tap(self, anchor: Anchor) -> tuple[AttentionTap, bool]:
        """The tap of an attention block, and whether scores or pattern are wanted there."""
        taps: dict[str, list[Any]] = {}
        for tap in self._plan.taps[anchor]:
            taps.setdefault(tap.place.form, []).append(tap)

        def at(form: str, value: Tensor) -> tuple[Tensor, bool]:
            assert self.world is not None
            after = value
            for tap in taps.get(form, ()):
                after = self.world.apply(tap, after)
            return after, after is not value and any(self.world.changes(tap) for tap in taps[form])

        return at, not taps.keys().isdisjoint({"scores", "pattern"})

    def _around_inline(self, path: str) -> Around:
        at, needs_scores = self._attention_tap((path, "inline"))
        sites = {tap.place.form: (tap.site.layer, tap.place.heads) for tap in self._plan.taps[path, "inline"]}

        def heads(form: str) -> int:
            layer, count = sites.get(form, (None, 0))
            return 0 if layer in self.world.split else count  # type: ignore[union-attr]

        def around(stock: Forward) -> Forward:
            def forward(*args: Any, **kwargs: Any) -> Any:
                like = next(value for value in [*args, *kwargs.values()] if isinstance(value, Tensor))
                with InlineTap(at, needs_scores, like, heads, lambda: self._paused):
                    return stock(*args, **kwargs)

            return forward

        return around


def _around_one_another(parts: list[Around]) -> Around | None:
    """All of them as one; the last is the outermost."""

    def around(stock: Forward) -> Forward:
        for part in parts:
            stock = part(stock)
        return stock

    return around if parts else None


def _with_input(
    reach: Callable[[Any], Any], names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Pass a module's first tensor argument, in the order of its signature, through `reach`."""
    for index, value in enumerate(args):
        if isinstance(value, Tensor):
            return (*args[:index], reach(value), *args[index + 1 :]), kwargs
    for name in [*(name for name in names if name in kwargs), *kwargs]:
        if isinstance(kwargs[name], Tensor):
            return args, {**kwargs, name: reach(kwargs[name])}
    raise RunError("A module whose input was asked for was called without any tensor.")
