"""The local backend: graphs run on a network in this process."""

import difflib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import torch

from interpose.engine.attention import Attention, tapped
from interpose.engine.plan import Plan, WorldPlan, compile_graph
from interpose.engine.values import Values
from interpose.engine.view import Wrap, view
from interpose.engine.world import World
from interpose.errors import InterposeError, RunError, SiteError
from interpose.graph.feed import Batch, Feed
from interpose.graph.nodes import Graph
from interpose.models import Dims, Family

_KEPT_PLANS = 64


class _Finished(BaseException):
    """Raised inside a forward pass when nothing after this point is wanted; never leaves this file."""


@final
class LocalBackend:
    """Runs graphs on a stock network.

    Args:
        network: the network; it is never changed.
        family: its table, or None.
        dims: its sizes, or None.
        attention: how its library lets attention be tapped, or None.
    """

    def __init__(
        self, network: torch.nn.Module, family: Family | None, dims: Dims | None, attention: Attention | None
    ) -> None:
        """Hold the network; nothing is touched."""
        self.network, self.family, self.dims, self.attention = network, family, dims, attention
        self._plans: dict[Graph, Plan] = {}

    def plan(self, graph: Graph) -> Plan:
        """The compiled form of a graph; `print` it to see what will run."""
        found = self._plans.get(graph)
        if found is None:
            found = compile_graph(graph, self.family, self.dims)
            self._check_modules(found)
            while len(self._plans) >= _KEPT_PLANS:
                self._plans.pop(next(iter(self._plans)), None)
            self._plans[graph] = found
        return found

    def run_many(self, graphs: Sequence[Graph], feeds: Sequence[Feed]) -> Iterator[dict[str, Any]]:
        """Run each graph with the feed beside it; see `interpose.graph.Backend`."""
        plan, last = None, None
        for graph, feed in zip(graphs, feeds, strict=True):
            if plan is None or graph is not last:
                plan, last = self.plan(graph), graph
            yield self._run(plan, feed)

    def search(self, method: Any, model: Any, pairs: Any, mediators: Any) -> Any:
        """Run a method's own search here, beside the weights."""
        return method.search(model, pairs, mediators)

    def _check_modules(self, plan: Plan) -> None:
        known = dict(self.network.named_modules(remove_duplicate=False))
        for world in plan.worlds:
            for module, _ in [*world.taps, *world.captures]:
                if module not in known:
                    raise SiteError(f"The model has no module at {module!r}. {self.nearest(module)}")

    def nearest(self, path: str) -> str:
        """A sentence naming the modules whose paths are closest to `path`."""
        known = [name for name, _ in self.network.named_modules() if name]
        close = difflib.get_close_matches(path, known, n=3, cutoff=0.5)
        return f"Nearest paths: {', '.join(close)}." if close else "model.network prints its parts."

    def _run(self, plan: Plan, feed: Feed) -> dict[str, Any]:
        device = next((weight.device for weight in self.network.parameters()), torch.device("cpu"))
        values = Values(plan, feed, self.network, device)
        for world in plan.worlds:
            if world.name not in feed.worlds:
                raise RunError(f"The feed has no inputs for the world {world.name!r}; it has {sorted(feed.worlds)}.")
            with torch.set_grad_enabled(world.gradients):
                self._call(World(values, world), feed.worlds[world.name], device)
        return values.saved

    def _call(self, world: World, batch: Batch, device: torch.device) -> None:
        called = view(self.network, self._wraps(world.plan, world))
        args, kwargs = _moved(batch.args, device), _moved(dict(batch.kwargs), device)
        try:
            called(*args, **kwargs)
        except _Finished:
            return
        except InterposeError:
            raise
        except Exception as error:
            after = f"{world.last_write.at}: after this write, " if world.last_write is not None else ""
            raise RunError(f'{after}the model failed in the world "{world.plan.name}": {error}') from error
        if world.missed:
            raise RunError(
                f'The model ran the world "{world.plan.name}" without reaching {", ".join(world.missed)}. '
                "That module is not called in this forward pass, or its call goes round the module system."
            )

    def _wraps(self, plan: WorldPlan, world: World) -> dict[str, Wrap]:
        sides: dict[str, set[str]] = {}
        for module, side in [*plan.taps, *plan.captures]:
            sides.setdefault(module, set()).add(side)
        return {module: self._wrap(module, found, world) for module, found in sides.items()}

    def _wrap(self, path: str, sides: set[str], world: World) -> Wrap:
        def wrap(module: torch.nn.Module, stock: Callable[..., Any]) -> Callable[..., Any]:
            if "attention" in sides:
                self._tap_attention(path, module, world)
            names = list(inspect.signature(type(module).forward).parameters)[1:] if "input" in sides else []

            def forward(*args: Any, **kwargs: Any) -> Any:
                if "inputs" in sides:
                    args, kwargs = world.reach((path, "inputs"), (args, kwargs))
                if "input" in sides:
                    args, kwargs = _with_input(lambda raw: world.reach((path, "input"), raw), names, args, kwargs)
                _stop_if(world)
                output = stock(*args, **kwargs)
                if "output" in sides:
                    output = world.reach((path, "output"), output)
                _stop_if(world)
                return output

            return forward

        return wrap

    def _tap_attention(self, path: str, module: torch.nn.Module, world: World) -> None:
        if self.attention is None:
            raise RunError(
                f"The attention of {path!r} cannot be looked into: it is not an attention module of the transformers library. "
                "Read attn.q, attn.k, attn.v or attn.z, or its own modules by path."
            )
        forms = {tap.place.form for tap in world.plan.taps[path, "attention"]}
        self.attention.install(module, tapped(world.attention_tap(path), bool(forms & {"scores", "pattern"})))


def _stop_if(world: World) -> None:
    if world.finished:
        raise _Finished


def _with_input(
    reach: Callable[[Any], Any], names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Pass a module's first tensor argument, in the order of its signature, through `reach`."""
    for index, value in enumerate(args):
        if isinstance(value, torch.Tensor):
            return (*args[:index], reach(value), *args[index + 1 :]), kwargs
    for name in [*(name for name in names if name in kwargs), *kwargs]:
        if isinstance(kwargs[name], torch.Tensor):
            return args, {**kwargs, name: reach(kwargs[name])}
    raise RunError("A module whose input was asked for was called without any tensor.")


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _moved(item, device) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_moved(item, device) for item in value)
    return value
