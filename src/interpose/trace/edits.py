"""Edits: changes that stay. An edited model is a view of a model in which every run has the change in it."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch

from interpose import __version__
from interpose.engine.structures import copied
from interpose.errors import GraphError, LoadError, TraceError
from interpose.graph import Batch, Feed, Graph
from interpose.graph.compose import MAIN, edit_of
from interpose.graph.named_positions import Named, counts_from_start, named_positions
from interpose.graph.nodes import Constant, Skip, Write
from interpose.trace.block import Trace
from interpose.trace.lines import user_line
from interpose.trace.positions import Padding
from interpose.trace.weights import hash_of_tensors
from interpose.wire import Format, decode, decode_feed, encode, encode_feed

_FORMAT = Format("edit", "1", LoadError)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Edit:
    """A change of a model as plain data: made of a block, kept in a file, done again in every run.

    Attributes:
        graph: what it does to a call of the model, its world `main`; other worlds bring values for it.
        feed: the inputs of those other worlds, and the tensors that the graph names.
        meta: where it came from: the model, the hash of its weights, versions, a note.

    Raises:
        GraphError: the graph changes nothing, or the feed lacks something that it names.
    """

    graph: Graph
    feed: Feed = field(default_factory=Feed)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Keep what the change needs, as it is now, and nothing else."""
        graph = edit_of(self.graph)
        object.__setattr__(self, "graph", graph)
        names = list(dict.fromkeys(node.ref for node in graph.nodes if isinstance(node, Constant)))
        beside = [world.name for world in graph.worlds if world.name != MAIN]
        for what, wanted, held in (("tensor", names, self.feed.tensors), ("world", beside, self.feed.worlds)):
            missing = [name for name in wanted if name not in held]
            if missing:
                raise GraphError(
                    f"The graph of this edit names the {what} {missing[0]!r}, which did not come with it. Give the "
                    "whole block: ip.Edit.of(t)."
                )
        tensors = {name: self.feed.tensors[name].detach().clone() for name in names}
        object.__setattr__(self, "feed", Feed({name: _snapshot(self.feed.worlds[name]) for name in beside}, tensors))
        object.__setattr__(self, "meta", dict(self.meta))

    @classmethod
    def of(cls, block: Trace, note: str = "") -> "Edit":
        """The change that a block writes, with what it says of its origin.

        Args:
            block: a block that has ended; what it saved does not matter.
            note: what a reader should know.

        Returns:
            the edit.

        Raises:
            TraceError: the block has not ended.
            GraphError: it changes nothing, or names positions that other prompts do not have.
        """
        edit = _of_block(block)
        versions = {"interpose": __version__, "torch": torch.__version__}
        hashed = {"weights_hash": block.model.weights_hash, "versions": versions}
        return replace(edit, meta={**edit.meta, **hashed, **({"note": note} if note else {})})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to one safetensors file, whole or not at all, and return its path.

        Raises:
            GraphError: it calls a function of the program, which stays in this process.
            LoadError: the folder does not exist.
        """
        feed, tensors = encode_feed(self.feed)
        header = {"graph": encode(self.graph), "feed": feed, "meta": _json(self.meta)}
        return _FORMAT.write(path, tensors, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Edit":
        """Read what `save` wrote; nothing in the file can run.

        Raises:
            LoadError: there is no such file, or it is damaged, newer, or something else.
            GraphError: what it says cannot be meant.
        """
        tensors, header = _FORMAT.read(path)
        missing = [name for name in ("graph", "feed", "meta") if name not in header]
        if missing:
            raise LoadError(
                f"The header of {path} is damaged: it lacks {', '.join(missing)}. Write it again with save()."
            )
        try:
            meta = json.loads(header["meta"])
            if not isinstance(meta, dict):
                raise ValueError("its meta is no JSON object")
        except (ValueError, RecursionError) as error:
            raise LoadError(f"The header of {path} is damaged: {error}. Write it again with save().") from error
        return cls(decode(header["graph"]), decode_feed(header["feed"], tensors), meta)

    @cached_property
    def hash(self) -> str:
        """sha256 of what it does, as hex: of its graph without line numbers, and of its tensors and inputs."""
        bare = Graph(
            tuple(replace(world, at="") for world in self.graph.worlds),
            tuple(replace(node, at="") for node in self.graph.nodes),
        )
        try:
            text = encode(bare)
        except GraphError:  # a function of the program: what it does cannot be hashed, only which one it is
            text = repr(bare)
        feed, tensors = encode_feed(self.feed)
        named = {f"{name} {value.dtype} {list(value.shape)}": value for name, value in tensors.items()}
        return hashlib.sha256(f"{text} {feed} {hash_of_tensors(named)}".encode()).hexdigest()

    @cached_property
    def named(self) -> tuple[Named, ...]:
        """The indices that pick positions by number."""
        return tuple(named_positions(self.graph, MAIN))

    @cached_property
    def from_start(self) -> Named | None:
        """The first index that counts positions from the start, if one does."""
        return next((found for found in self.named if counts_from_start(found.part, self.feed.tensors)), None)

    def __str__(self) -> str:
        """Its graph, as a program."""
        return str(self.graph)

    def __repr__(self) -> str:
        """Where it writes, what it was made on, and its hash."""
        sites = dict.fromkeys(str(n.site) for n in self.graph.nodes if isinstance(n, Write | Skip) and n.world == MAIN)
        first = ", ".join(list(sites)[:3]) + (f" and {len(sites) - 3} more" if len(sites) > 3 else "")
        made = f", made on {self.meta['model']}" if "model" in self.meta else ""
        note = f", {self.meta['note']}" if self.meta.get("note") else ""
        return f"Edit({self.hash[:8]}: writes {first}{made}{note})"


def _snapshot(batch: Batch) -> Batch:
    """A batch whose tensors are not changed by the program."""
    return replace(batch, args=copied(batch.args), kwargs=copied(dict(batch.kwargs)))


def as_edit(what: Any, model: Any) -> Edit:
    """An edit from whatever can be one.

    Args:
        what: a block that has ended, an `Edit`, a graph without constants, or an object whose `edit(model)` gives one.
        model: the model that will be edited.

    Returns:
        the edit.

    Raises:
        TraceError: it is none of these.
        GraphError: it changes nothing.
    """
    match what:
        case Edit():
            return what
        case Trace():
            return _of_block(what)
        case Graph():
            return Edit(what)
    made = what.edit(model) if callable(getattr(what, "edit", None)) and not isinstance(what, type) else None
    if not isinstance(made, Edit):
        raise TraceError(
            f"{user_line()}: a {type(what).__name__} is no edit. Give a block that has ended (with model.trace(prompt, "
            "run=False) as t: ...), an ip.Edit, or a graph."
        )
    return made


def _of_block(block: Trace) -> Edit:
    if not hasattr(block, "graph"):
        raise TraceError(f"{user_line()}: this block has not ended, or has failed, so it is no edit yet.")
    edit = Edit(block.graph, block.feed, {"model": block.model.info.name})
    batch = block.feed.worlds.get(MAIN) or next(iter(block.feed.worlds.values()))
    padding, found = Padding.of(batch) or Padding.of(batch, "decoder_"), edit.from_start
    if found is not None and padding is not None and (padding.ragged or padding.right):
        raise GraphError(
            f"{found.node.at}: this edit names positions of {found.site} from the start, on prompts of unequal length, "
            "so where they lie belongs to these prompts. Write it on one prompt, or count from the end (-1 is last)."
        )
    return edit


def _json(meta: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(meta))
    except (TypeError, ValueError) as error:
        raise GraphError(
            f"The meta of this edit cannot be stored as JSON: {error}. Use numbers, text and lists."
        ) from error
