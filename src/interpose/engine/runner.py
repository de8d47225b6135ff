"""A plan on a network: kept views for its worlds, and one run after another through them."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, final

import torch

from interpose.engine.attention import Attention
from interpose.engine.counts import Counts
from interpose.engine.generation import Continuation, check_cache
from interpose.engine.memory import WeightMemory, with_advice
from interpose.engine.plan import Plan
from interpose.engine.saved import Overwritten
from interpose.engine.second import PlainAttention
from interpose.engine.structures import copied, moved, with_own_cache
from interpose.engine.taps import TappedView
from interpose.engine.values import Values
from interpose.engine.world import World
from interpose.engine.world_plan import WorldPlan
from interpose.errors import InterposeError, RunError
from interpose.graph.arguments import Steps
from interpose.graph.feed import Batch, Feed
from interpose.graph.nodes import Read
from interpose.graph.sites import NEW_TOKENS

_KEPT_VIEWS = 4


@dataclass
class _Pass:
    """What happens in a forward pass, and the views made for it that no run uses now."""

    plan: WorldPlan
    idle: list[TappedView] = field(default_factory=list)


@final
class Runner:
    """Runs one plan, any number of times, from any number of threads.

    Attributes:
        plan: what runs.

    Args:
        plan: what runs.
        network: the network; it is never changed.
        attention: how its library lets attention be tapped, or None.
        counts: told of every pass.
    """

    def __init__(self, plan: Plan, network: torch.nn.Module, attention: Attention | None, counts: Counts) -> None:
        """Make no view before the first run."""
        self.plan, self._network, self._attention, self._counts = plan, network, attention, counts
        self._passes = {world.name: _Pass(world) for world in plan.worlds}
        self._spans = {world.name: plan.spans(world.name) for world in plan.worlds}
        self._step_passes: dict[tuple[str, frozenset[Steps]], _Pass] = {}
        # What is known to work in place is run with copies; what is found to is run again, unless that would be seen.
        in_place = any(getattr(part, "inplace", False) is True for part in network.modules())
        self._copies = in_place or plan.effects
        self._weights = WeightMemory(network)
        self._checkpointed = [part for part in network.modules() if hasattr(part, "gradient_checkpointing")]

    def run(self, feed: Feed, device: torch.device) -> dict[str, Any]:
        """Run the plan.

        Args:
            feed: the batch of each world, the tensor of each input and constant.
            device: where the network is.

        Returns:
            the saved values by name; tensors are detached.

        Raises:
            RunError: the network failed, or a site was not reached.
        """
        if self._network.training and any(part.gradient_checkpointing for part in self._checkpointed):
            raise RunError(
                "The network is in training mode with gradient checkpointing, which runs its layers twice. "
                "Call network.eval(), or switch checkpointing off."
            )
        # Gradients cannot be had in inference mode, whoever switched it on.
        outside = torch.is_inference_mode_enabled() and bool(self.plan.derivatives)
        with torch.inference_mode(False) if outside else nullcontext():
            before = _versions(feed)
            try:
                # Inference tensors do not count their changes, so that nothing could be noticed.
                return self._attempt(feed, device, self._copies or torch.is_inference_mode_enabled())
            except Overwritten:
                if self._copies or before != _versions(feed):
                    raise RunError(
                        "The network changes the tensors that it is given in place, so this run cannot be trusted. "
                        "Pass copies (x.clone()), and read sites as site.clone()."
                    ) from None
                self._copies = True
                return self._attempt(feed, device, copies=True)

    def _attempt(self, feed: Feed, device: torch.device, copies: bool) -> dict[str, Any]:
        try:
            return self._once(feed, device, copies)
        except InterposeError as error:
            # Where in the engine it was raised says nothing of the user's program; what failed below is the cause.
            raise with_advice(error).with_traceback(None) from error.__cause__
        except torch.OutOfMemoryError as error:  # while inputs were brought to the device
            raise with_advice(RunError(f"{self.plan.worlds[0].world.at}: {error}"), error) from error

    def _once(self, feed: Feed, device: torch.device, copies: bool) -> dict[str, Any]:
        values = Values(self.plan, feed, self._network, device, copies, self._counts)
        with torch.no_grad():
            values.start(self._weights.found())
            for world in self.plan.worlds:
                self._run_world(world, values, feed, device)
        return values.finish()

    def _run_world(self, world: WorldPlan, values: Values, feed: Feed, device: torch.device) -> None:
        if world.name not in feed.worlds:
            raise RunError(f"The feed has no inputs for the world {world.name!r}; it has {sorted(feed.worlds)}.")
        batch = feed.worlds[world.name]
        given = batch.args, with_own_cache(batch.kwargs)
        args, kwargs = moved(copied(given) if values.copies else given, device)
        if batch.generation is not None:
            self._generate(world, values, batch, kwargs)
            return
        self._refuse_steps(world)
        if world.gradients:
            with torch.enable_grad(), PlainAttention() if self.plan.higher else nullcontext():
                self._call(self._passes[world.name], values, args, kwargs)
        else:
            self._call(self._passes[world.name], values, args, kwargs)

    def _refuse_steps(self, world: WorldPlan) -> None:
        for steps, at in self._spans[world.name].items():
            raise RunError(f"{at}: {steps} belongs to a generation, and the world {world.name!r} is one forward pass.")

    def _generate(self, world: WorldPlan, values: Values, batch: Batch, kwargs: dict[str, Any]) -> None:
        assert batch.generation is not None
        spans = self._spans[world.name]
        if world.gradients:
            raise RunError(
                f"{world.world.at}: no gradients pass through a generation. Generate first, then trace the text with "
                "what it gave: model.trace(prompt + t.text)."
            )
        keeps_logits = "logits_to_keep" in signature(type(self._network).forward).parameters
        continuation = Continuation(batch.generation, kwargs)

        def call(step: int, kwargs: dict[str, Any]) -> Any:
            values.begin_step(step)
            here = self._pass_at(world, step, frozenset(steps for steps in spans if step in steps))
            if here.plan.stops and not here.plan.sites:
                return None
            if step == 0 and keeps_logits and not here.plan.reads_logits:
                kwargs = {"logits_to_keep": 1, **kwargs}  # only the last position chooses a token
            output = self._call(here, values, (), kwargs)
            values.end_step(step)
            if here.plan.skips and output is not None:
                check_cache(output, continuation.length(step), next(iter(here.plan.skips.values())).node.at)
            return output

        tokens = continuation.run(call)
        for index in sorted(self.plan.needed):
            node = self.plan.graph.nodes[index]
            if isinstance(node, Read) and node.site.name == NEW_TOKENS and node.world == world.name:
                values.read(index, tokens)
        values.end_generation()
        for steps, at in spans.items():
            if steps.start >= continuation.ran or (steps.stop is not None and steps.stop > continuation.ran):
                raise RunError(_never_ran(steps, at, world.name, continuation))

    def _pass_at(self, world: WorldPlan, step: int, active: frozenset[Steps]) -> _Pass:
        key = world.name, active
        if key not in self._step_passes:
            self._step_passes[key] = _Pass(self.plan.at_step(world, step))
        return self._step_passes[key]

    def _call(self, here: _Pass, values: Values, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        view, plan = self._view(here), here.plan
        world = World(values, plan, view.anchors)
        self._counts.one_forward()
        try:
            output = view.call(world, args, kwargs)
        except (InterposeError, Overwritten):
            raise
        except Exception as error:
            raise _explained(error, world) from error
        finally:
            if len(here.idle) < _KEPT_VIEWS:
                here.idle.append(view)
        if not world.done and world.missed:
            raise RunError(
                f"{plan.world.at or 'interpose'}: the model ran the world {plan.name!r} without reaching "
                f"{', '.join(world.missed)}. That module is not called in this forward pass, lies in one that is "
                "skipped, or its call goes round the module system."
            )
        return output

    def _view(self, here: _Pass) -> TappedView:
        """A view that no other run uses; lists give and take one element at a time, also between threads."""
        while here.idle:
            try:
                view = here.idle.pop()
            except IndexError:
                break
            if view.fresh():
                return view
        return TappedView(self._network, here.plan, self._attention)


def _never_ran(steps: Steps, at: str, world: str, continuation: Continuation) -> str:
    last = "" if steps.one else f" Write t.steps({steps.start}) for as many steps as there are."
    return (
        f"{at}: {steps} never ran to its end: the generation {world!r} ended after {continuation.ran} "
        f"step{'s' * (continuation.ran != 1)}, because {continuation.reason}.{last}"
    )


def _explained(error: Exception, world: World) -> RunError:
    """What to raise where the network itself failed: the user's line comes first."""
    plan = world.plan
    if world.last_write is not None:
        return RunError(
            f"{world.last_write.at}: after this write, the model failed in the world {plan.name!r}: {error}"
        )
    return RunError(f"{plan.world.at or 'interpose'}: the model failed in the world {plan.name!r}: {error}")


def _versions(feed: Feed) -> list[int]:
    """How often each tensor that the worlds are given has been changed in place."""
    given = [value for batch in feed.worlds.values() for value in (*batch.args, *batch.kwargs.values())]
    return [value._version for value in given if isinstance(value, torch.Tensor) and not value.is_inference()]
