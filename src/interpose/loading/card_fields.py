"""From what a TOML file says to a dataclass: each field is known, there and of the right type, or an error names it."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
_PLAIN: dict[Any, tuple[str, tuple[type, ...]]] = {
    str: ("text", (str,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    bool: ("true or false", (bool,)),
    Path: ("a path", (Path,)),
}


def filled(kind: type[T], given: Mapping[str, Any], where: str = "") -> T:
    """Make a dataclass of what a file says.

    Args:
        kind: the dataclass; its fields are text, numbers, tuples of text, tables, and further dataclasses.
        given: values by name.
        where: the table they stand in, such as `[weights] `, for errors.

    Returns:
        the dataclass.

    Raises:
        ValueError: a field is unknown, is missing or has another type; the message names it.
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            raise ValueError(f"{where}it has a field {name!r} that no card has; expected {', '.join(known)}")
    missing = [
        name
        for name, field in known.items()
        if name not in given and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{where}it lacks the field {missing[0]!r}")
    return kind(**{name: _value(hints[name], value, f"{where}{name}") for name, value in given.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):  # a part that may be left out
        hint = next(part for part in get_args(hint) if part is not types.NoneType)
    if is_dataclass(hint) and isinstance(hint, type):
        _need(isinstance(value, dict), where, "a table", value)
        return filled(hint, value, f"[{where}] ")
    if get_origin(hint) is tuple:
        _need(isinstance(value, list) and all(isinstance(word, str) for word in value), where, "a list of text", value)
        return tuple(value)
    if get_origin(hint) is Mapping:
        _need(isinstance(value, dict), where, "a table", value)
        inner = get_args(hint)[1]
        return value if inner is Any else {key: _value(inner, held, f"{where}.{key}") for key, held in value.items()}
    words, allowed = _PLAIN[hint]
    _need(isinstance(value, allowed) and isinstance(value, bool) == (hint is bool), where, words, value)
    return float(value) if hint is float else value


def _need(right: bool, where: str, expected: str, value: Any) -> None:
    if not right:
        raise ValueError(f"{where} is {value!r}; expected {expected}")
