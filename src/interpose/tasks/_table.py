"""What a file of pairs is read into, and how its mistakes are named: the file, the line, what was expected."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from interpose.errors import TaskError

MOST_BYTES = 64 * 2**20
MOST_PAIRS = 100_000
LONGEST = 100_000
"""Characters of one prompt."""

Where = str | int | tuple[int, int]
"""Where a role stands in the clean prompt: a word of it, characters `start:stop`, or the number of its token, counted
from the first that is not special."""


@dataclass(frozen=True)
class Row:
    """One pair of a file, not yet tokens.

    Attributes:
        place: where it stands, such as `mine.jsonl:3`.
        answer: the text of the token that is right.
        roles: by name, where a role stands in the clean prompt.
    """

    place: str
    clean: str
    corrupt: str
    answer: str
    wrong: str
    roles: Mapping[str, Where] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """All pairs of a file.

    Attributes:
        rows: the pairs in the file's order.
        counterfactual: the column or field that the corrupt prompts come from.
        fields: what the file calls `clean`, `corrupt`, `answers` and `wrong`.
        notes: what was chosen on the way that a reader of the file has to know.
    """

    rows: tuple[Row, ...]
    counterfactual: str
    fields: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A file's name and its text."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        """The first 16 digits of the sha256 of the text."""
        return sha256(self.text.encode()).hexdigest()[:16]

    def error(self, line: int | str, said: str) -> TaskError:
        """An error about a line, or about a place inside a file that is one document."""
        return TaskError(f"{self.place(line)}: {said}")

    def place(self, line: int | str) -> str:
        """A line as `mine.jsonl:3`, or another place as `mine.json: prompts[3]`."""
        return f"{self.name}:{line}" if isinstance(line, int) else f"{self.name}: {line}"

    def prompt(self, line: int | str, name: str, value: Any) -> str:
        """A value that has to be a text.

        Raises:
            TaskError: it is none, is empty or too long, or holds half a character.
        """
        if not isinstance(value, str):
            raise self.error(line, f"{name!r} is {_short(value)}, of type {type(value).__name__}; expected a text.")
        if not value:
            raise self.error(line, f"{name!r} is empty; expected a text of at least one token.")
        if len(value) > LONGEST:
            raise self.error(line, f"{name!r} has {len(value):,} characters; expected at most {LONGEST:,}.")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise self.error(
                line, f"{name!r} holds half a character (a lone surrogate) at {error.start}; write it whole."
            ) from error
        return value


def read_source(path: Path) -> Source:
    """The text of a file, in UTF-8.

    Raises:
        TaskError: there is no such file, it is too large, or it is not UTF-8.
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist or is no plain file"
        raise TaskError(f"{path} {what}; expected a file of pairs.")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > MOST_BYTES:
        raise TaskError(
            f"{path} is larger than {MOST_BYTES // 2**20} MB, the most that a file of pairs may have. Split it."
        )
    try:
        return Source(str(path), data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TaskError(f"{path}:{line}: this is not UTF-8 text ({error.reason}). Save the file as UTF-8.") from error


def check_count(source: Source, count: int) -> None:
    """Refuse a file without pairs, or with too many.

    Raises:
        TaskError: it has none, or more than 100,000.
    """
    if not count:
        raise TaskError(f"{source.name} holds no pair; expected at least one.")
    if count > MOST_PAIRS:
        raise TaskError(f"{source.name} holds more than {MOST_PAIRS:,} pairs, the most there may be. Split it.")


def no_twice(fail: Callable[[str], TaskError]) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """For `json.loads`: makes an object of its fields, and refuses one that has a field twice."""

    def made(fields: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(fields)
        if len(found) < len(fields):
            twice = next(name for name, _ in fields if sum(name == other for other, _ in fields) > 1)
            raise fail(f"the field {twice!r} stands there twice; expected it once.")
        return found

    return made


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 60 else said[:57] + "..."
