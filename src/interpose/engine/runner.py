"""A plan on a network: kept views for its worlds, and one run after another through them."""

from contextlib import nullcontext
from typing import Any, final

import torch

from interpose.engine.attention import Attention
from interpose.engine.plan import Plan, WorldPlan
from interpose.engine.taps import TappedView
from interpose.engine.values import Overwritten, Values, copied
from interpose.engine.world import World
from interpose.errors import InterposeError, RunError
from interpose.graph.feed import Batch, Feed

_KEPT_VIEWS = 4


@final
class Runner:
    """Runs one plan, any number of times, from any number of threads.

    Attributes:
        plan: what runs.

    Args:
        plan: what runs.
        network: the network; it is never changed.
        attention: how its library lets attention be tapped, or None.
    """

    def __init__(self, plan: Plan, network: torch.nn.Module, attention: Attention | None) -> None:
        """Make no view before the first run."""
        self.plan, self._network, self._attention = plan, network, attention
        self._idle: list[list[TappedView]] = [[] for _ in plan.worlds]
        # What is known to work in place is run with copies; what is found to is run again.
        self._copies = any(getattr(part, "inplace", False) is True for part in network.modules())
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
                return self._attempt(feed, device)
            except Overwritten:
                if self._copies or before != _versions(feed):
                    raise RunError(
                        "The network changes the tensors that it is given in place, so this run cannot be trusted. "
                        "Pass copies (x.clone()), and read sites as site.clone()."
                    ) from None
                self._copies = True
                return self._attempt(feed, device)

    def _attempt(self, feed: Feed, device: torch.device) -> dict[str, Any]:
        values = Values(self.plan, feed, self._network, device, self._copies)
        with torch.no_grad():
            values.start()
        for number, world in enumerate(self.plan.worlds):
            if world.name not in feed.worlds:
                raise RunError(f"The feed has no inputs for the world {world.name!r}; it has {sorted(feed.worlds)}.")
            with torch.set_grad_enabled(world.gradients):
                self._call(number, world, values, feed.worlds[world.name])
        return values.finish()

    def _call(self, number: int, plan: WorldPlan, values: Values, batch: Batch) -> None:
        view = self._view(number)
        world = World(values, plan, view.anchors)
        given = batch.args, dict(batch.kwargs)
        args, kwargs = moved(copied(given) if self._copies else given, values.device)
        try:
            view.call(world, args, kwargs)
        except (InterposeError, Overwritten):
            raise
        except Exception as error:
            raise _explained(error, world) from error
        finally:
            if len(self._idle[number]) < _KEPT_VIEWS:
                self._idle[number].append(view)
        if not world.done and world.missed:
            raise RunError(
                f"{plan.world.at or 'interpose'}: the model ran the world {plan.name!r} without reaching "
                f"{', '.join(world.missed)}. That module is not called in this forward pass, or its call goes "
                "round the "
                "module system."
            )

    def _view(self, number: int) -> TappedView:
        """A view that no other run uses; lists give and take one element at a time, also between threads."""
        idle = self._idle[number]
        while idle:
            try:
                view = idle.pop()
            except IndexError:
                break
            if view.fresh():
                return view
        return TappedView(self._network, self.plan.worlds[number], self._attention)


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


def moved(value: Any, device: torch.device) -> Any:
    """Tensors, also inside tuples, lists and dictionaries, on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if type(value) is dict:
        return {name: moved(item, device) for name, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)([moved(item, device) for item in value])
    return value
