"""The local backend: graphs run on a network in this process."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, final

import torch

from interpose.engine.attention import Attention
from interpose.engine.counts import Counts
from interpose.engine.forecast import in_words
from interpose.engine.plan import Plan, compile_graph
from interpose.engine.reach import Reach, Unreachable, reach_of
from interpose.engine.resumed import Stock
from interpose.engine.runner import Runner
from interpose.engine.sweep import Sweep
from interpose.engine.view import is_hooked, packages_of
from interpose.errors import LoadError, SiteError
from interpose.graph.feed import Feed
from interpose.graph.nodes import Graph
from interpose.graph.places import Dims, Table

_KEPT_PLANS = 64


@final
class LocalBackend:
    """Runs graphs on a stock network.

    Args:
        network: the network; it is never changed.
        family: its table, or None.
        dims: its sizes, or None.
        attention: how its library lets attention be tapped, or None.

    Attributes:
        counts: how many passes it has made so far.
        memory: how many bytes the runs of a sweep may hold at once, about; None for half of what is free.
        opener: opens another model by name, with a number type and a device; None where nobody gave one.
        opened: the weights' hash of every model that was opened, by name.
    """

    def __init__(
        self, network: torch.nn.Module, family: Table | None, dims: Dims | None, attention: Attention | None
    ) -> None:
        """Hold the network; nothing is touched."""
        self.network, self.family, self.dims, self.attention = network, family, dims, attention
        self.memory: int | None = None
        self.counts = Counts()
        self.opener: Callable[[str, torch.dtype, torch.device], Any] | None = None
        self.opened: dict[str, str] = {}
        self._runners: dict[Graph, Runner] = {}
        # The parts that have weights of their own; which weights they are may change.
        self._owners = [part for part in network.modules() if part._parameters]

    @property
    def device(self) -> torch.device:
        """Where the network's first parameter is."""
        for part in self._owners:
            for weight in part._parameters.values():
                if weight is not None:
                    return weight.device
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The type of the network's first floating-point parameter."""
        return next((w.dtype for w in self._weights() if w.is_floating_point()), torch.get_default_dtype())

    def _weights(self) -> Iterator[torch.Tensor]:
        for part in self._owners:
            for weight in part._parameters.values():
                if weight is not None:
                    yield weight

    def plan(self, graph: Graph, feed: Feed | None = None) -> Plan:
        """The compiled form of a graph; `print` it to see what will run.

        Args:
            graph: the graph.
            feed: what it is given; with it, the plan also says what a run costs.
        """
        return replace(self._runner(graph).plan, among_others=tuple(self._among_others(graph, feed)))

    def _among_others(self, graph: Graph, feed: Feed | None) -> list[str]:
        stock = self._stock()
        if isinstance(stock, str):
            return [f"runs whole, also among several: {stock}"]
        try:
            return in_words(reach_of(graph), stock, feed)
        except Unreachable as why:
            return [f"runs whole, also among several: {why}"]

    def run_many(self, graphs: Sequence[Graph], feeds: Sequence[Feed]) -> Iterator[dict[str, Any]]:
        """Run each graph with the feed beside it; see `interpose.graph.Backend`."""
        if len(graphs) > 1 and not isinstance(stock := self._stock(), str):
            yield from Sweep(stock, self._reach, self._alone, self.memory).run_many(graphs, feeds)
            return
        for graph, feed in zip(graphs, feeds, strict=True):
            yield self._alone(graph, feed)

    def search(self, method: Any, model: Any, pairs: Any, mediators: Any) -> Any:
        """Run a method's own search here, beside the weights."""
        return method.search(model, pairs, mediators)

    def open(self, name: str) -> Any:
        """Another model, here; see `interpose.graph.Backend`."""
        if self.opener is None:
            raise LoadError(
                f"{name!r} cannot be opened from here: this model was not made by ip.load, ip.wrap or ip.build, so it "
                "does not know how models are loaded. Make it with one of these."
            )
        found = self.opener(name, self.dtype, self.device)
        self.opened[name] = found.weights_hash
        return found

    def nearest(self, path: str) -> str:
        """A sentence naming the modules whose paths are closest to `path`."""
        known = [name for name, _ in self.network.named_modules() if name]
        close = difflib.get_close_matches(path, known, n=3, cutoff=0.5)
        return f"Nearest paths: {', '.join(close)}." if close else "model.network prints its parts."

    def _alone(self, graph: Graph, feed: Feed) -> dict[str, Any]:
        return self._runner(graph).run(feed, self.device)

    def _stock(self) -> Stock | str:
        """What runs that share an unchanged run need to know, or why none can share one."""
        if self.family is None or self.dims is None or self.attention is None:
            return "the architecture has no table, so it is not known when a module is reached"
        if not self.family.causal:
            return "the model is not causal: a change at one position reaches those before it"
        libraries = packages_of(self.network)
        for path, part in self.network.named_modules():
            where = repr(path) if path else "the network"
            # A list of modules is never called, so that its own mode says nothing.
            if part.training and not isinstance(part, torch.nn.ModuleList | torch.nn.ModuleDict):
                return f"{where} is in training mode; network.eval() changes that"
            if getattr(part, "inplace", False) is True:
                return f"{where} works in place"
            if is_hooked(part, libraries):
                return f"what a hook or forward of its own does on {where} may depend on what is left out"
        return Stock(self.network, self.family, self.dims, self.attention, self.device, self.counts)

    def _reach(self, graph: Graph) -> Reach | None:
        try:
            return reach_of(graph)
        except Unreachable:
            return None

    def _runner(self, graph: Graph) -> Runner:
        found = self._runners.get(graph)
        if found is None:
            plan = compile_graph(graph, self.family, self.dims)
            self._check_modules(plan)
            found = Runner(plan, self.network, self.attention, self.counts)
            while len(self._runners) >= _KEPT_PLANS:
                # Another thread may be dropping the same one.
                self._runners.pop(next(iter(list(self._runners)), graph), None)
            self._runners[graph] = found
        return found

    def _check_modules(self, plan: Plan) -> None:
        known = dict(self.network.named_modules(remove_duplicate=False))
        for world in plan.worlds:
            for module in sorted(world.modules):
                if module not in known:
                    raise SiteError(f"The model has no module at {module!r}. {self.nearest(module)}")
