"""A card as the text of its `card.toml`, which `cards.read` reads back to an equal card."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from interpose.loading.cards import Card


def text(card: Card) -> str:
    """The `card.toml` of a card: plain fields first, then its tables. What is empty, or false, is left out.

    Args:
        card: the card; where it lies is not written.

    Returns:
        the text.
    """
    return "\n".join(_table({key: value for key, value in _held(card).items() if key != "folder"}, "")) + "\n"


def _held(value: Any) -> dict[str, Any]:
    if not is_dataclass(value):
        return dict(value)
    held = {field.name: getattr(value, field.name) for field in fields(value)}
    return {
        name: part for name, part in held.items() if part is not None and part is not False and part not in ((), {}, "")
    }


def _table(held: Mapping[str, Any], name: str) -> list[str]:
    tables = {key: value for key, value in held.items() if is_dataclass(value) or isinstance(value, Mapping)}
    plain = [f"{key} = {_value(value)}" for key, value in held.items() if key not in tables]
    lines = [f"[{name}]", *plain] if name and plain else plain
    for key, value in tables.items():
        inner = _table(_held(value), f"{name}.{key}" if name else key)
        lines += ["", *inner] if inner[0] else inner
    return lines


def _value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # TOML's basic strings know all escapes that JSON writes
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence):
        words = [_value(part) for part in value]
        return f"[{', '.join(words)}]" if len(words) <= 1 else _lines(words)
    return repr(value)


def _lines(words: list[str]) -> str:
    lines, line = [], " "
    for word in words:
        if len(line) + len(word) > 116:
            lines.append(line)
            line = " "
        line += f" {word},"
    return "\n".join(["[", *lines, line, "]"])
