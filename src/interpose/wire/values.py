"""What may stand in a graph or a feed, as JSON and back.

Numbers, text, nothing and tuples are JSON's own; everything else is an object with one key that names its kind, such
as `{"slice": [0, null, {"ref": [3]}]}`. The kinds are a fixed list: no name that comes from outside finds an object.
"""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from interpose.errors import GraphError
from interpose.graph.arguments import Dots, Dtype, Ref, Slice, Steps
from interpose.graph.feed import Generation
from interpose.graph.ops import DTYPES
from interpose.graph.sites import NEW_TOKENS, Site, standard

DEPTH = 32
"""How deep values may lie inside one another."""

TEXT = 4096
"""How long one text may be, in characters."""

KINDS: dict[str, type] = {
    "ref": Ref,
    "slice": Slice,
    "dots": Dots,
    "dtype": Dtype,
    "site": Site,
    "steps": Steps,
    "generation": Generation,
}
"""The dataclasses that may stand in a graph or a feed, besides nodes: the wire's name for each."""

_NAMES = {kind: name for name, kind in KINDS.items()}
_INTEGERS = range(-(2**63), 2**64)
_PARTS = {
    name: TypeAdapter(tuple[tuple(field.type for field in fields(kind))], config=ConfigDict(strict=True))  # type: ignore[misc]
    for name, kind in KINDS.items()
}


def to_json(value: Any, held: dict[str, Any] | None = None, depth: int = 0) -> Any:
    """A value as what JSON can say.

    Args:
        value: a number, text, None, a tuple of values, or one of `KINDS`.
        held: where tensors are put, by a name of their own; lists and dictionaries are taken then too. None refuses
            all three.
        depth: how deep this value lies.

    Returns:
        JSON's own types.

    Raises:
        GraphError: there is no way to send such a value.
    """
    if depth > DEPTH:
        raise GraphError(f"Values lie more than {DEPTH} deep inside one another. Flatten them.")
    match value:
        case None | bool():
            return value
        case int():
            return _integer(value)
        case float():
            return value if math.isfinite(value) else {"float": repr(value)}
        case complex():
            return {"complex": [to_json(value.real), to_json(value.imag)]}
        case str():
            return _text(value)
        case tuple():
            return [to_json(item, held, depth + 1) for item in value]
    name = _NAMES.get(type(value))
    if name is not None:
        return {name: [to_json(getattr(value, field.name), held, depth + 1) for field in fields(value)]}
    return _held_to_json(value, held, depth)


def _held_to_json(value: Any, held: dict[str, Any] | None, depth: int) -> Any:
    if held is not None:
        if type(value) is list:
            return {"list": [to_json(item, held, depth + 1) for item in value]}
        if isinstance(value, dict) and all(type(key) is str for key in value):
            return {"dict": [[_text(key), to_json(item, held, depth + 1)] for key, item in value.items()]}
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            name = f"t{len(held)}"
            held[name] = value
            return {"tensor": name}
    raise GraphError(f"A {type(value).__name__} cannot be sent or saved; use tensors, numbers, text and tuples.")


def from_json(raw: Any, held: dict[str, Any] | None = None, depth: int = 0) -> Any:
    """The value that JSON says; `to_json` backwards.

    Args:
        raw: what was read from JSON.
        held: the tensors that came beside it; None refuses tensors, lists and dictionaries.
        depth: how deep this value lies.

    Returns:
        the value.

    Raises:
        GraphError: this is no such value.
    """
    if depth > DEPTH:
        raise GraphError(f"Values lie more than {DEPTH} deep inside one another.")
    match raw:
        case None | bool():
            return raw
        case int():
            return _integer(raw)
        case float():
            return raw if raw == raw else math.nan
        case str():
            return _text(raw)
        case list():
            return tuple([from_json(item, held, depth + 1) for item in raw])
        case dict() if len(raw) == 1:
            ((kind, inside),) = raw.items()
            return _of_kind(kind, inside, held, depth)
    raise GraphError(f"A value is {_short(raw)}; expected a number, text, null, a list, or an object of one known key.")


def _of_kind(kind: Any, inside: Any, held: dict[str, Any] | None, depth: int) -> Any:
    if kind == "float" and inside in ("inf", "-inf", "nan"):
        # One and the same NaN, so that equal programs are equal graphs.
        return {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[inside]
    if kind in KINDS or kind == "complex":
        if type(inside) is not list:
            raise GraphError(f"A {kind} has a list of its parts, not {_short(inside)}.")
        parts = tuple([from_json(item, held, depth + 1) for item in inside])
        return _complex(parts) if kind == "complex" else _made(kind, parts)
    if held is not None:
        made = _HELD.get(kind)
        if made is not None:
            return made(inside, held, depth)
    raise GraphError(f"There is no kind of value named {_short(kind)}.")


def _made(kind: str, parts: tuple[Any, ...]) -> Any:
    try:
        made = KINDS[kind](*_PARTS[kind].validate_python(parts))
    except ValidationError as error:
        raise GraphError(f"A {kind} has wrong parts: {first_fault(error)}.") from error
    match made:
        case Dtype(name=name) if name not in DTYPES:
            raise GraphError(f"There is no number type named {_short(name)}.")
        case Steps(start=start) if start < 0:
            raise GraphError(f"Steps are counted from 0; there is no step {start}.")
        case Site():
            _check_site(made)
    return made


def _check_site(site: Site) -> None:
    if site.part not in ("", "output", "input", "inputs"):
        raise GraphError(f"A module has an output, an input and inputs, but no {_short(site.part)}.")
    if site.call is not None and site.call < 0:
        raise GraphError(f"Calls of a module are counted from 0; there is no call {site.call}.")
    if not site.part and site.name != NEW_TOKENS and standard(site.name).name != site.name:
        raise GraphError(f"Sites travel by their own names: {standard(site.name).name}, not {_short(site.name)}.")


def _complex(parts: tuple[Any, ...]) -> complex:
    if len(parts) != 2 or not all(type(part) is float for part in parts):
        raise GraphError("A complex number has two parts, each with a decimal point.")
    return complex(*parts)


def _integer(value: int) -> int:
    if value not in _INTEGERS:
        raise GraphError("A whole number is larger than 64 bits, which no tensor holds. Write it as a float.")
    return int(value)


def _text(value: str) -> str:
    if len(value) > TEXT:
        raise GraphError(f"A text has {len(value)} characters; a name or an argument has at most {TEXT}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise GraphError("A text holds half a character (a lone surrogate), which cannot be sent.") from error
    return str(value)


def _list(inside: Any, held: dict[str, Any], depth: int) -> list[Any]:
    if type(inside) is not list:
        raise GraphError(f"A list holds a list, not {_short(inside)}.")
    return [from_json(item, held, depth + 1) for item in inside]


def _dict(inside: Any, held: dict[str, Any], depth: int) -> dict[str, Any]:
    if type(inside) is not list or not all(type(pair) is list and len(pair) == 2 for pair in inside):
        raise GraphError(f"A dictionary holds a list of pairs, not {_short(inside)}.")
    if not all(type(key) is str for key, _ in inside):
        raise GraphError("The keys of a dictionary are texts.")
    return {_text(key): from_json(item, held, depth + 1) for key, item in inside}


def _tensor(inside: Any, held: dict[str, Any], depth: int) -> Any:  # noqa: ARG001
    if type(inside) is not str or inside not in held:
        raise GraphError(f"The tensor {_short(inside)} did not come with it.")
    return held[inside]


_HELD: dict[str, Callable[[Any, dict[str, Any], int], Any]] = {"list": _list, "dict": _dict, "tensor": _tensor}


def first_fault(error: ValidationError) -> str:
    """Where the first fault lies and what it is, in one line."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    return f"{place}: {fault['msg']}" if place else fault["msg"]


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
