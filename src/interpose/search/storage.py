"""Scores and circuits on disk: one safetensors file each, everything that is not a number as JSON in its header.

What a file claims is checked before memory is taken for it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from torch import Tensor

from interpose.errors import SearchError
from interpose.models.stream import EdgeNames, StreamGraph
from interpose.wire import Format

VERSION = "1"


class Stored(NamedTuple):
    """What a file holds: one tensor over units, the units' names, and two JSON objects."""

    tensor: Tensor
    units: Sequence[str]
    meta: Mapping[str, Any]
    fields: Mapping[str, Any]


def write(path: str | os.PathLike[str], kind: str, content: Stored) -> Path:
    """Write a file whole or not at all, and return its path.

    Raises:
        SearchError: something in `meta` is not JSON, or the folder does not exist.
    """
    units = content.units
    names = {"graph": asdict(units.graph)} if isinstance(units, EdgeNames) else {"names": list(units)}
    header = {
        "units": json.dumps(names),
        "meta": _json("meta", content.meta),
        "fields": _json("fields", content.fields),
    }
    return Format(kind, VERSION, SearchError).write(path, {kind: content.tensor}, header)


def read(path: str | os.PathLike[str], kind: str) -> Stored:
    """Read a file of the given kind (`scores` or `circuit`).

    Raises:
        SearchError: there is no such file, or it is not what it should be.
    """
    tensors, header = Format(kind, VERSION, SearchError).read(path)
    tensor = tensors.get(kind)
    if tensor is None:
        raise SearchError(f"{path} is not a whole safetensors file of {kind}. Expected one written by save().")
    try:
        units = _units(json.loads(header["units"]), tensor.shape)
        meta, fields = dict(json.loads(header["meta"])), dict(json.loads(header["fields"]))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, SearchError) as error:
        raise SearchError(f"The header of {path} is damaged: {error!r}. Write it again with save().") from error
    return Stored(tensor, units, meta, fields)


def _units(stored: Mapping[str, Any], shape: Sequence[int]) -> Sequence[str]:
    if "graph" in stored:
        graph = stored["graph"]
        if not all(type(value) in (int, bool, NoneType) for value in graph.values()):
            raise TypeError(f"a graph that is not described by numbers: {graph}")
        named = StreamGraph(**graph)
        # Compared as a number: a header may claim more edges than any sequence can have.
        if tuple(shape) != (named.n_edges,):
            raise ValueError(f"{named.n_edges} units, but values of shape {list(shape)}")
        return named.edges
    if tuple(shape) != (len(stored["names"]),):
        raise ValueError(f"{len(stored['names'])} units, but values of shape {list(shape)}")
    if not all(isinstance(name, str) for name in stored["names"]):
        raise TypeError("names that are not text")
    return tuple(stored["names"])


def _json(what: str, value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(value), default=_plain)
    except (TypeError, ValueError) as error:
        raise SearchError(
            f"The {what} cannot be stored as JSON: {error}. Use numbers, text, lists and dicts of them."
        ) from error


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} {value!r}")
