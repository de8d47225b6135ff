"""A graph as JSON text and back, checked field by field.

    {"interpose": "graph", "version": 1,
     "worlds": [{"name": "main"}],
     "nodes": [{"node": "read", "site": {"site": ["layers.3.output", "", null]}, "world": "main"}, ...]}

A field that has its default value is left out. Which fields a node has is what its dataclass says.
"""

import json
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic_core import from_json as parse

from interpose.errors import GraphError
from interpose.graph.nodes import (
    Call,
    Constant,
    Gradient,
    Graph,
    Input,
    Log,
    Node,
    Op,
    Read,
    Save,
    Skip,
    Stop,
    Weight,
    World,
    Write,
)
from interpose.wire.values import first_fault, from_json, to_json

VERSION = 1
NODES = 200_000
"""How many nodes a graph may have."""

WORLDS = 10_000
"""How many worlds a graph may have."""

LENGTH = 64 * 2**20
"""How many characters the text of a graph may have."""

_KINDS: dict[str, type[Node]] = {
    "read": Read,
    "write": Write,
    "skip": Skip,
    "stop": Stop,
    "op": Op,
    "call": Call,
    "gradient": Gradient,
    "weight": Weight,
    "constant": Constant,
    "input": Input,
    "save": Save,
    "log": Log,
}
"""The nodes that may travel. What is not here stays in the process that wrote it."""

_NAMES = {kind: name for name, kind in _KINDS.items()}
_STRICT = ConfigDict(extra="forbid", strict=True)
_SENT = {kind: [field for field in fields(kind) if field.init] for kind in (*_KINDS.values(), World)}


def _model(name: str, kind: type) -> Any:
    """The check of one dataclass: its own fields, with their own types, and no others."""
    found: dict[str, Any] = {
        field.name: (
            Annotated[field.type, BeforeValidator(from_json)],
            ... if field.default is MISSING else field.default,
        )
        for field in _SENT[kind]
    }
    return create_model(name, __config__=_STRICT, node=(Literal[name], ...), **found)  # type: ignore[valid-type]


_MODELS = {name: _model(name, kind) for name, kind in _KINDS.items()}
_WORLD = _model("world", World)


class _Message(BaseModel):
    model_config = _STRICT
    interpose: Literal["graph"]
    version: int
    worlds: Annotated[list[dict[str, Any]], Field(max_length=WORLDS)]
    nodes: Annotated[list[dict[str, Any]], Field(max_length=NODES)]


def encode(graph: Graph) -> str:
    """A graph as text.

    Args:
        graph: any graph whose nodes are plain data.

    Returns:
        JSON, for `decode`.

    Raises:
        GraphError: a node holds something that cannot be sent, or there is too much of it.
    """
    if len(graph.nodes) > NODES or len(graph.worlds) > WORLDS:
        raise GraphError(
            f"A graph of {len(graph.nodes)} nodes and {len(graph.worlds)} worlds cannot be sent or saved: the limits "
            f"are {NODES} and {WORLDS}. Split it."
        )
    worlds = [_fields(world) for world in graph.worlds]
    nodes = [{"node": _name(index, node), **_fields(node)} for index, node in enumerate(graph.nodes)]
    message = {"interpose": "graph", "version": VERSION, "worlds": worlds, "nodes": nodes}
    text = json.dumps(message, allow_nan=False, separators=(",", ":"))
    if len(text) > LENGTH:
        raise GraphError(f"A graph of {len(text)} characters cannot be sent or saved: the limit is {LENGTH}. Split it.")
    return text


def decode(text: str) -> Graph:
    """The graph that a text says; `encode` backwards.

    Args:
        text: what `encode` gave, from anywhere: nothing in it is trusted.

    Returns:
        an equal graph.

    Raises:
        GraphError: it is no such text.
    """
    message = opened(text, "graph", VERSION, LENGTH)
    try:
        checked = _Message.model_validate(message)
    except ValidationError as error:
        raise GraphError(f"This is no graph that encode() wrote: {first_fault(error)}.") from error
    worlds = [_made(f"worlds[{i}]", World, _WORLD, {"node": "world"} | raw) for i, raw in enumerate(checked.worlds)]
    nodes = [_node(f"nodes[{i}]", raw) for i, raw in enumerate(checked.nodes)]
    return Graph(tuple(worlds), tuple(nodes))


def opened(text: str, kind: str, version: int, limit: int) -> dict[str, Any]:
    """The JSON object in a text, after its kind and version were looked at.

    Args:
        text: the text.
        kind: what it must say it is.
        version: the version that this interpose reads.
        limit: how many characters it may have.

    Returns:
        the object; nothing else in it is checked.

    Raises:
        GraphError: it is no JSON, or says that it is something else.
    """
    if len(text) > limit:
        raise GraphError(f"A {kind} of {len(text)} characters is not read: the limit is {limit}.")
    try:
        message = parse(text, allow_inf_nan=False)
    except ValueError as error:
        raise GraphError(f"This is no {kind} that encode() wrote: it is not JSON ({error}).") from error
    if not isinstance(message, dict) or message.get("interpose") != kind:
        raise GraphError(f"This is no {kind} that encode() wrote: it does not say that it is one.")
    if message.get("version") != version or type(message["version"]) is not int:
        raise GraphError(
            f"This {kind} has format version {message.get('version')!r}, and this interpose reads version {version}. "
            "Write it again, or install the version that wrote it."
        )
    return message


def _fields(holder: Any) -> dict[str, Any]:
    said = {field.name: (getattr(holder, field.name), field.default) for field in _SENT[type(holder)]}
    return {name: to_json(value) for name, (value, default) in said.items() if value is not default}


def _name(index: int, node: Node) -> str:
    name = _NAMES.get(type(node))
    if name is None:
        raise GraphError(
            f"{node.at or f'Node {index}'}: {type(node).__name__} is local only: it cannot be sent or saved. Write "
            "what it does with the operations of torch."
        )
    return name


def _node(where: str, raw: dict[str, Any]) -> Any:
    name = raw.get("node")
    if type(name) is not str or name not in _KINDS:
        known = ", ".join(_KINDS)
        raise GraphError(
            f"This graph cannot be read: {where} is of the kind {str(name)[:80]!r}. The kinds are {known}."
        )
    return _made(where, _KINDS[name], _MODELS[name], raw)


def _made(where: str, kind: type, model: Any, raw: dict[str, Any]) -> Any:
    try:
        checked = model.model_validate(raw)
    except ValidationError as error:
        raise GraphError(f"This graph cannot be read: {where}.{first_fault(error)}.") from error
    except GraphError as error:
        raise GraphError(f"This graph cannot be read: {where}: {error}") from error
    return kind(**{field.name: getattr(checked, field.name) for field in _SENT[kind]})
