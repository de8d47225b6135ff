"""Pairs from a file and to one: which reader takes which ending, and where the roles of a file's words stand."""

import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interpose.errors import TaskError
from interpose.tasks import FILE_ENDINGS, _auto_circuit, _eap_ig, _jsonl
from interpose.tasks._align import Tokenized, Wording, aligned, encode, is_one_token, pieces, tokenizer_of
from interpose.tasks._pairs import Pairs
from interpose.tasks._roles import Span, tokens_of
from interpose.tasks._table import Row, Source, Table, read_source
from interpose.trace.spelling import spelled

READERS: Mapping[str, Any] = MappingProxyType(dict(zip(FILE_ENDINGS, (_jsonl, _auto_circuit, _eap_ig), strict=True)))
"""By the ending of a file, the module that reads it."""


def read_pairs(
    model: Tokenized, path: str | Path, counterfactual: str | None = None, *, leave_out: bool = False
) -> Pairs:
    """Counterfactual pairs from a file of your own, all of them, in the file's order.

    Three forms are read, told by the ending. Nothing in a file is ever executed.

    - `.jsonl`: on each line an object with `clean`, `corrupt`, `answer`, `wrong` and, if you like, `roles`: by name, a
      word that the clean prompt has once, or the characters `[start, stop]` of it; the role is its last token.
    - `.json`: as the library auto-circuit reads it (https://github.com/UFO-101/auto-circuit).
    - `.csv`: the columns of EAP-IG (https://github.com/hannamw/EAP-IG), or `clean`, `corrupt`, `answer`, `wrong`.

    What had to be chosen, such as one of several right answers, is warned of and is in `info["notes"]`.

    Args:
        model: the model whose tokenizer is used.
        path: the file, at most 64 MB and 100,000 pairs.
        counterfactual: the column of a CSV that the corrupt prompts come from; by default the first.
        leave_out: leave out the pairs that do not suit this tokenizer, those that do not align or whose answers are not
            one token each, and warn how many they are; without it the first is an error.

    Returns:
        The pairs, as `ip.pairs` makes them; their `info` has the file's name and a hash of its text.

    Raises:
        TaskError: the file cannot be read, or a pair of it cannot be used; the message has the file and the line.
    """
    source, table, tokenizer = read(model, Path(path), counterfactual)
    if leave_out:
        table = _suiting(source, table, tokenizer)
    return made(source, table, tokenizer, table.rows)


def read(model: Tokenized, path: Path, counterfactual: str | None) -> tuple[Source, Table, Any]:
    """A file's text, its rows and the tokenizer; warns and raises as `read_pairs`."""
    tokenizer = tokenizer_of(model)
    source, known = kinds(path)
    kind = counterfactual or next(iter(known))
    if kind not in known:
        raise TaskError(f"{path} has no counterfactual {kind!r}; expected one of {', '.join(known)}.")
    table = READERS[path.suffix.lower()].read(source, tokenizer, kind)
    for note in table.notes:
        warnings.warn(note, UserWarning, stacklevel=3)
    return source, table, tokenizer


def kinds(path: Path) -> tuple[Source, dict[str, str]]:
    """A file's text, and the counterfactuals that it offers, by name.

    Raises:
        TaskError: it cannot be read.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise TaskError(f"{path} ends in {path.suffix!r}; expected a file of pairs: {', '.join(READERS)}.")
    source = read_source(path)
    return source, reader.kinds(source)


def made(source: Source, table: Table, tokenizer: Any, rows: Sequence[Row]) -> Pairs:
    """Some rows of a file as pairs; raises as `read_pairs`."""
    wording = Wording(lambda row: f"{rows[row].place}: ", lambda column, _: table.fields[column], lambda _: "this pair")
    columns = {
        "clean": [row.clean for row in rows],
        "corrupt": [row.corrupt for row in rows],
        "answers": [row.answer for row in rows],
        "wrong": [row.wrong for row in rows],
    }
    found = aligned(tokenizer, columns, wording)
    notes = {"notes": table.notes} if table.notes else {}
    info = {
        "task": Path(source.name).name,
        "counterfactual": table.counterfactual,
        "sha256": source.digest,
        **notes,
        "n": len(rows),
    }
    return replace(found, info=info, roles=_roles(tokenizer, rows))


def _suiting(source: Source, table: Table, tokenizer: Any) -> Table:
    """The rows that are pairs for this tokenizer; warns how many are not, and raises where none is."""
    rows = table.rows
    answers, wrong = (pieces(tokenizer, [getattr(row, name) for row in rows]) for name in ("answer", "wrong"))
    clean, corrupt = (encode(tokenizer, [getattr(row, name) for row in rows]) for name in ("clean", "corrupt"))
    suits = [
        is_one_token(tokenizer, right) and is_one_token(tokenizer, other) and right != other and len(one) == len(two)
        for right, other, one, two in zip(answers, wrong, clean, corrupt, strict=True)
    ]
    if all(suits):
        return table
    kept, out = ([row for row, suit in zip(rows, suits, strict=True) if suit is side] for side in (True, False))
    said = f"{source.name}: {len(out)} of {len(rows)} pairs do not suit this tokenizer"
    if not kept:
        raise TaskError(
            f"{said}, so none is left. Read the file without leave_out to see what is wrong with the first."
        )
    note = f"{said} and are left out, the first of them at {out[0].place}."
    warnings.warn(note, UserWarning, stacklevel=3)
    return replace(table, rows=tuple(kept), notes=(*table.notes, note))


def write_pairs(model: Tokenized, pairs: Pairs, path: str | Path) -> Path:
    """Write pairs as JSON lines, which `read_pairs` reads back with any tokenizer that suits them.

    Roles are written as the characters of their token. The file appears whole or not at all.

    Args:
        model: the model whose tokenizer made the pairs.
        pairs: what to write.
        path: where to; the name ends in `.jsonl` and its folder exists.

    Returns:
        The path.

    Raises:
        TaskError: the name ends otherwise, nothing can be written there, or a token or a role cannot be written as
            text.
    """
    path, tokenizer = Path(path), tokenizer_of(model)
    if path.suffix != ".jsonl":
        raise TaskError(f"{path} ends in {path.suffix!r}; pairs are written as JSON lines: end the name in .jsonl.")
    lines = [json.dumps(_line(tokenizer, pairs, row), ensure_ascii=False) for row in range(len(pairs))]
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise TaskError(f"Nothing can be written to {path}: {error.strerror}.") from error
    return path


def _line(tokenizer: Any, pairs: Pairs, row: int) -> dict[str, Any]:
    said: dict[str, Any] = {"clean": pairs.clean[row], "corrupt": pairs.corrupt[row]}
    for name, ids in (("answer", pairs.answers), ("wrong", pairs.wrong)):
        said[name] = spelled(tokenizer, int(ids[row]))
        if pieces(tokenizer, [said[name]]) != [[int(ids[row])]]:
            raise TaskError(f"Pair {row}: its {name} is the token {int(ids[row])}, which no text gives again.")
    spans = _spans(tokenizer, pairs.clean[row]) if pairs.roles else []
    for role, positions in pairs.roles.items():
        position = int(positions[row])
        span = Span(*spans[position])
        if span.start == span.end or tokens_of(tokenizer, pairs.clean[row], {role: span})[role][1] != position:
            raise TaskError(f"Pair {row}: the role {role!r} is a token without characters of its own at {position}.")
        said.setdefault("roles", {})[role] = list(span)
    return said


def _spans(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """The characters of each token; of a special one, none."""
    if not getattr(tokenizer, "is_fast", False):
        raise TaskError(
            f"Roles are written as the characters of tokens, which {type(tokenizer).__name__} does not give. Use a "
            "fast tokenizer, or write the pairs without roles: dataclasses.replace(pairs, roles={})."
        )
    return [tuple(span) for span in tokenizer(text, return_offsets_mapping=True)["offset_mapping"]]


def _roles(tokenizer: Any, rows: Sequence[Row]) -> dict[str, Int[Tensor, " n"]]:
    found: dict[str, list[int]] = {name: [] for name in rows[0].roles}
    for row in rows if found else ():
        words = {name: _span(row, name, where) for name, where in row.roles.items() if not isinstance(where, int)}
        tokens = tokens_of(tokenizer, row.clean, words)
        for name, where in row.roles.items():
            found[name].append(_counted(tokenizer, row.clean, where) if isinstance(where, int) else tokens[name][1])
    return {name: torch.tensor(positions) for name, positions in found.items()}


def _counted(tokenizer: Any, text: str, number: int) -> int:
    """A token that is numbered from the first that is not special, counted from the last of all."""
    (whole,), (bare,) = encode(tokenizer, [text]), tokenizer([text], add_special_tokens=False)["input_ids"]
    front = next(at for at in range(len(whole)) if whole[at : at + len(bare)] == list(bare))
    return front + number - len(whole)


def _span(row: Row, name: str, where: str | tuple[int, int]) -> Span:
    """The characters of a role."""
    if isinstance(where, str):
        places = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(where)}(?!\w)", row.clean)]
        if len(places) != 1:
            raise TaskError(
                f"{row.place}: the role {name!r} is the word {where!r}, found {len(places)} times in the clean prompt; "
                "expected once. Write its characters as [start, stop]."
            )
        return Span(*places[0])
    if not 0 <= where[0] < where[1] <= len(row.clean):
        raise TaskError(
            f"{row.place}: the role {name!r} is the characters [{where[0]}, {where[1]}]; expected 0 <= start < stop <= "
            f"{len(row.clean)}."
        )
    return Span(*where)
