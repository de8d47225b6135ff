"""The CSV files of EAP-IG (https://github.com/hannamw/EAP-IG), and a plain one of four columns of text.

Every file has the columns `clean` and `corrupted` (or `corrupt`; `corrupted_hard` is a second counterfactual). The
answers are in one of these forms, told by the columns; other columns are not used:

    answer, wrong                             texts
    correct_idx, incorrect_idx                token ids; both words have to be in the clean prompt
    country_idx, corrupted_country_idx        token ids, checked against `country` and `corrupted_country`
    answers_idx, corrupted_answers_idx        lists of them, checked against `answers` and `corrupted_answers`
    clean_answer_idx, corrupted_answer_idx    token ids that nothing in the file explains: taken with a warning
    label, or correct_idx alone               two digits YY of the prompt; right is whatever is greater
    plural                                    1 for " are", 0 for " is"

A token id belongs to one tokenizer, which such a file does not name. It is taken where the token that it stands for
here is a text that gives this id again, and fits what the file says beside it; else it is refused.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from interpose.errors import TaskError
from interpose.tasks._align import pieces
from interpose.tasks._table import Row, Source, Table, check_count
from interpose.trace.spelling import spelled

_KINDS = ("corrupt", "corrupted", "corrupted_hard")
_ID_COLUMNS = {  # the columns of ids, and those of text that explain them
    ("correct_idx", "incorrect_idx"): None,
    ("country_idx", "corrupted_country_idx"): ("country", "corrupted_country"),
    ("answers_idx", "corrupted_answers_idx"): ("answers", "corrupted_answers"),
    ("clean_answer_idx", "corrupted_answer_idx"): None,
}
_UNEXPLAINED = ("clean_answer_idx", "corrupted_answer_idx")


@dataclass(frozen=True)
class _Line:
    """One record, with the number of its first line."""

    source: Source
    number: int
    cells: Mapping[str, str]

    def error(self, said: str) -> TaskError:
        return self.source.error(self.number, said)

    def text(self, column: str) -> str:
        return self.source.prompt(self.number, column, self.cells[column])

    def whole(self, column: str, digits: str) -> int:
        if not digits.strip().isascii() or not digits.strip().isdigit() or len(digits) > 9:
            raise self.error(f"{column!r} is {digits!r}; expected a whole number.")
        return int(digits)


@dataclass(frozen=True)
class _Form:
    """How the answers are written: a function from a record to the two texts, and what has to be said about it."""

    fields: tuple[str, str]
    answers: Callable[[_Line], tuple[str, str]]
    note: str = ""


def kinds(source: Source) -> dict[str, str]:
    """The counterfactuals that the file's columns offer.

    Raises:
        TaskError: there is no such column.
    """
    header = _records(source)[0].cells
    found = {name: f"as the column `{name}` of {source.name} says" for name in _KINDS if name in header}
    if not found or "clean" not in header:
        raise source.error(1, f"the columns are {_quoted(header)}; expected 'clean' and 'corrupted' among them.")
    return found


def read(source: Source, tokenizer: Any, kind: str) -> Table:
    """Read such a file.

    Raises:
        TaskError: it is no CSV, its columns are of none of the forms, or a value is not what its column has to hold.
    """
    kinds(source)
    header, *lines = _records(source)
    check_count(source, len(lines))
    form = _form(source, tokenizer, header.cells)
    rows = []
    for line in lines:
        answer, wrong = form.answers(line)
        rows.append(Row(source.place(line.number), line.text("clean"), line.text(kind), answer, wrong))
    fields = {"clean": "'clean'", "corrupt": repr(kind), "answers": form.fields[0], "wrong": form.fields[1]}
    note = form.note.format(name=source.name, answer=rows[0].answer, wrong=rows[0].wrong)
    return Table(tuple(rows), kind, fields, (note,) if note else ())


def _records(source: Source) -> list[_Line]:
    """The header, and all records."""
    reader = csv.reader(io.StringIO(source.text, newline=""), strict=True)
    header: list[str] = []
    found, start = [], 1
    try:
        for cells in reader:
            if not header:
                header = [cell.strip() for cell in cells]
                twice = [name for name in header if header.count(name) > 1]
                if twice:
                    raise source.error(1, f"the column {twice[0]!r} stands there twice; expected it once.")
            if cells and len(cells) != len(header):
                raise source.error(
                    start, f"this record has {len(cells)} values; expected {len(header)}, as the header."
                )
            if cells:
                found.append(_Line(source, start, dict(zip(header, cells, strict=True))))
                check_count(source, len(found))
            start = reader.line_num + 1
    except csv.Error as error:
        raise source.error(start, f"this is no CSV ({error}).") from error
    check_count(source, len(found))
    return found


def _form(source: Source, tokenizer: Any, header: Mapping[str, str]) -> _Form:
    if {"answer", "wrong"} <= set(header):
        return _Form(("'answer'", "'wrong'"), lambda line: (line.text("answer"), line.text("wrong")))
    for columns, explained in _ID_COLUMNS.items():
        if {*columns, *(explained or ())} <= set(header):
            several = " Where several tokens are right, the first is taken." if columns[0] == "answers_idx" else ""
            fields = (f"the token of {columns[0]!r}", f"the token of {columns[1]!r}")
            note = _trust(columns) if columns == _UNEXPLAINED else several and "{name}:" + several
            return _Form(fields, partial(_from_ids, tokenizer, columns, explained), note)
    for column in ("label", "correct_idx"):
        if column in header:
            fields = ("a number above " + repr(column), "a number up to " + repr(column))
            return _Form(fields, partial(_greater, column), _HALFWAY)
    if "plural" in header:
        return _Form(("the verb", "the other verb"), _verbs, '{name}: " are" is compared with " is".')
    raise source.error(
        1,
        f"none of the columns {_quoted(header)} says which answers are right; expected 'answer' and 'wrong', "
        "'correct_idx' and 'incorrect_idx', 'label', or 'plural'.",
    )


_HALFWAY = (
    "{name}: whatever is greater than its number is right. The number half way up to 99 is compared with half of it: "
    "in the first pair {answer} with {wrong}."
)


def _trust(columns: tuple[str, str]) -> str:
    return (
        f"{{name}}: nothing in the file says for which tokenizer {columns[0]!r} and {columns[1]!r} were written. Here "
        "they read {answer!r} and {wrong!r} in the first pair; see that they are what was meant."
    )


def _from_ids(
    tokenizer: Any, columns: tuple[str, str], explained: tuple[str, str] | None, line: _Line
) -> tuple[str, str]:
    found = []
    for place, column in enumerate(columns):
        token = _first(line, column)
        text = _text_of(tokenizer, line, column, token)
        if explained is not None:
            fits, beside = _begins(text, line.cells[explained[place]]), f"{explained[place]!r} of this line"
        else:
            fits, beside = columns == _UNEXPLAINED or text.strip() in line.cells["clean"], "the clean prompt"
        if not fits:
            raise line.error(
                f"{column!r} is {token}, which is {text!r} for this model's tokenizer and is not in {beside}. The file "
                "was written for another tokenizer: use its model, or give the answers as text in the columns 'answer' "
                "and 'wrong'."
            )
        found.append(text)
    return found[0], found[1]


def _first(line: _Line, column: str) -> int:
    """The id in a cell, the first where it holds a list."""
    cell = line.cells[column]
    if not cell.lstrip().startswith("["):
        return line.whole(column, cell)
    try:
        ids = json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise line.error(f"{column!r} is no list of token ids ({error}).") from error
    if not ids or not all(type(token) is int for token in ids):
        raise line.error(f"{column!r} is {cell[:60]}; expected a list of at least one token id.")
    return ids[0]


def _text_of(tokenizer: Any, line: _Line, column: str, token: int) -> str:
    if not 0 <= token < len(tokenizer):
        raise line.error(f"{column!r} is {token}; this model's tokenizer has ids from 0 to {len(tokenizer) - 1}.")
    text = spelled(tokenizer, token)
    if not text.strip() or pieces(tokenizer, [text]) != [[token]]:
        raise line.error(
            f"{column!r} is {token}, which is {text!r} for this model's tokenizer, no text that gives it again. "
            "The file was written for another tokenizer: use its model, or give the answers as text in the columns "
            "'answer' and 'wrong'."
        )
    return text


def _begins(text: str, said: str) -> bool:
    """Whether a token begins one of the words in a cell, which may be written as a list of quoted words."""
    return any(word.strip().startswith(text.strip()) for word in said.strip("[]").replace('"', "'").split("'"))


def _greater(column: str, line: _Line) -> tuple[str, str]:
    number = line.whole(column, line.cells[column])
    if number > 98 or f"{number:02d}" not in line.cells["clean"]:
        raise line.error(
            f"{column!r} is {number}; expected a number from 0 to 98 that stands in the clean prompt with two digits. "
            "A token id needs 'correct_idx' and 'incorrect_idx'."
        )
    return f"{(number + 100) // 2:02d}", f"{number // 2:02d}"


def _verbs(line: _Line) -> tuple[str, str]:
    said = line.cells["plural"].strip()
    if said not in ("0", "1"):
        raise line.error(f"'plural' is {said!r}; expected 0 or 1.")
    return (" are", " is") if said == "1" else (" is", " are")


def _quoted(names: Any) -> str:
    return ", ".join(map(repr, names))
