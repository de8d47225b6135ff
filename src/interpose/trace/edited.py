"""Running an edited model: the edit in front of every graph, whoever runs it."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from interpose.errors import GraphError, TraceError
from interpose.graph import Feed, Graph
from interpose.graph.compose import Composed, compose
from interpose.graph.nodes import Read
from interpose.graph.sites import NEW_TOKENS, shared
from interpose.trace.edits import Edit, as_edit
from interpose.trace.lines import user_line
from interpose.trace.positions import Padding

if TYPE_CHECKING:
    from interpose.trace.model import Model

_KEPT = 64


@final
class EditedBackend:
    """A backend that puts an edit in front of every graph and hands it on.

    Args:
        inner: what runs the graphs.
        edit: what is done in every run.
    """

    def __init__(self, inner: Any, edit: Edit) -> None:
        """Nothing is composed before it is asked for."""
        self.inner, self.edit = inner, edit
        self._composed: dict[tuple[Graph, frozenset[str]], Composed] = {}

    @property
    def device(self) -> torch.device:
        """As of what runs the graphs."""
        return self.inner.device

    @property
    def dtype(self) -> torch.dtype:
        """As of what runs the graphs."""
        return self.inner.dtype

    @property
    def counts(self) -> Any:
        """As of what runs the graphs."""
        return self.inner.counts

    def nearest(self, path: str) -> str:
        """A sentence naming the modules whose paths are closest to `path`."""
        return self.inner.nearest(path)

    def plan(self, graph: Graph, feed: Feed | None = None) -> Any:
        """The compiled form of a graph with the edit in front; `print` it to see what will run."""
        stepped: list[Any] = [node for node in graph.nodes if _of_generation(node)]
        return self.inner.plan(self._with_edit(graph, frozenset(node.world for node in stepped)).graph, feed)

    def run_many(self, graphs: Sequence[Graph], feeds: Sequence[Feed]) -> Iterator[dict[str, Any]]:
        """Run each graph on the edited model; see `interpose.graph.Backend`."""
        if len(graphs) != len(feeds):
            raise ValueError(f"{len(graphs)} graphs were given with {len(feeds)} feeds.")
        last: _Run | None = None
        made: dict[int, _Run] = {}

        def run(index: int) -> _Run:
            # A feed may be made when it is asked for, so that each is asked for once.
            nonlocal last
            if index not in made:
                graph, feed = graphs[index], feeds[index]
                generations = frozenset(name for name, batch in feed.worlds.items() if batch.generation is not None)
                same = last is not None and last.graph is graph and last.generations == generations
                composed = last.composed if same and last is not None else self._with_edit(graph, generations)
                last = made[index] = _Run(graph, feed, generations, composed)
            return made[index]

        composed = _Each(len(graphs), lambda index: run(index).composed.graph)
        runs = self.inner.run_many(composed, _Each(len(graphs), lambda index: self._fed(run(index))))
        for index in range(len(graphs)):
            self._check_positions(run(index).feed)
            yield next(runs)
            del made[index]

    def search(self, method: Any, model: Any, pairs: Any, mediators: Any) -> Any:
        """Run a search method beside the weights, on the edited model."""
        return self.inner.search(method, model, pairs, mediators)

    @property
    def opened(self) -> Mapping[str, str]:
        """As of what runs the graphs."""
        return self.inner.opened

    def open(self, name: str) -> Any:
        """Another model, without the edit."""
        return self.inner.open(name)

    def _with_edit(self, graph: Graph, generations: frozenset[str]) -> Composed:
        key = graph, generations
        found = self._composed.get(key)
        if found is None:
            found = compose(self.edit.graph, graph, generations)
            while len(self._composed) >= _KEPT:
                # Another thread may be dropping the same one.
                self._composed.pop(next(iter(list(self._composed)), key), None)
            self._composed[key] = found
        return found

    def _fed(self, run: "_Run") -> Feed:
        own, added = self.edit.feed, run.composed
        worlds = {name: own.worlds[old] for name, old in added.worlds.items()}
        return run.feed.with_(worlds, **{name: own.tensors[old] for name, old in added.tensors.items()})

    def _check_positions(self, feed: Feed) -> None:
        """An edit that names positions means other tokens, or none, where prompts are padded or short."""
        if not self.edit.named:
            return
        found = self.edit.from_start
        for name, batch in feed.worlds.items():
            if found is not None and batch.generation is not None and found.read.steps is None:
                raise GraphError(
                    f"{found.node.at}: this edit names positions of {found.site} from the start, and each later "
                    f"step of the generation {name!r} has only one. Count from the end (-1 is the newest), or write it "
                    "inside `with t.step(0):` of a generation."
                )
            padding = _padding(batch)
            if padding is None or not (padding.right or (padding.ragged and found is not None)):
                continue
            first = found or self.edit.named[0]
            why = "is padded on the right" if padding.right else "has prompts of unequal length, padded on the left"
            raise GraphError(
                f"{first.node.at}: this edit names positions of {first.site} by number, and the batch of the world "
                f"{name!r} {why}, so it would change padding. Give one prompt at a time"
                + ("." if padding.right else ", or count from the end (-1 is the last).")
            )


def _of_generation(node: Any) -> bool:
    """Whether a node tells that its world is a generation: it is about steps, or keeps the new tokens."""
    tokens = isinstance(node, Read) and node.site == shared(NEW_TOKENS)
    return tokens or getattr(node, "steps", None) is not None


def _padding(batch: Any) -> Padding | None:
    try:
        return Padding.of(batch) or Padding.of(batch, "decoder_")
    except DataDependentOutputException:  # shapes are being found, without data
        return None


class _Run(NamedTuple):
    """One run: what it was given, which of its worlds are generations, and the graph with the edit."""

    graph: Graph
    feed: Feed
    generations: frozenset[str]
    composed: Composed


@final
class _Each(Sequence[Any]):
    """A sequence whose elements are made when they are asked for."""

    def __init__(self, count: int, make: Callable[[int], Any]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._make(index)


def edited(model: "Model", edits: tuple[Any, ...]) -> "Model":
    """A view of a model in which edits are done in every run, the first of them first; see `Model.edited`."""
    from interpose.trace.model import Model

    if not edits:
        raise TraceError(f"{user_line()}: edited() was given no edit. Give one or more: model.edited(t).")
    for what in edits:
        edit = as_edit(what, model)
        said = edit.meta.get("note") or repr(edit)
        note = f"{model.info.note}, edited: {said}" if model.info.note else f"edited: {said}"
        info = replace(model.info, name=f"{model.info.name} + edit {edit.hash[:8]}", note=note, weights_hash="")
        view = Model(model.network, tokenizer=model.tokenizer, info=info, backend=EditedBackend(model.backend, edit))
        view._make_hash = partial(_hash_with_edit, model, edit)
        model = view
    return model


def _hash_with_edit(model: "Model", edit: Edit) -> str:
    return hashlib.sha256(f"{model.weights_hash} {edit.hash}".encode()).hexdigest()
