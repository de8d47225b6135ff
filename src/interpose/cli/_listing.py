"""Lists what a package holds, or explains one thing in it, from docstrings alone."""

import itertools
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from interpose import discovery
from interpose.cli.base import terminal, write_json
from interpose.discovery import Entry
from interpose.errors import UsageError


@dataclass(frozen=True)
class Row:
    """One thing in a list, for the screen and for `--json` alike.

    Attributes:
        name: What a person writes.
        summary: One line.
        facts: What else a program may want, by name.
        doc: The whole explanation; shown only where one thing is asked for.
        kind: What it is, where one list holds things of several kinds; they are then shown in groups.
    """

    name: str
    summary: str
    facts: dict[str, str | int]
    doc: str
    kind: str = ""


def list_entries(package: str, name: str | None, *, as_json: bool) -> None:
    """List the entries of a package, or explain one of them.

    Raises:
        UsageError: there is no entry of that name; the message lists those that exist.
    """
    rows = [_row(entry) for entry in discovery.entries(package)]
    if name is not None:
        wanted = discovery.find(package, name)
        rows = [row for row in rows if row.name == wanted.name]
    what = package.rpartition(".")[2]
    show(rows, one=name is not None, as_json=as_json, hint=f"`interpose {what} NAME` explains one.")


def show(rows: list[Row], *, one: bool, as_json: bool, hint: str) -> None:
    """Write rows to standard output: a list, or one row in full.

    Args:
        rows: What to write; exactly one where `one` is set.
        one: Explain the one row in full.
        as_json: Write JSON: an object for one row, an array of them for a list.
        hint: What the last line of a list says.
    """
    documents = [_document(row) for row in rows]
    if as_json:
        write_json({**documents[0], "doc": rows[0].doc} if one else documents)
    elif one:
        _explain(rows[0])
    else:
        _list(rows, hint)


def pick(rows: list[Row], name: str, kind: str) -> Row:
    """The row of that name.

    Raises:
        UsageError: there is none; the message lists those that exist.
    """
    found = [row for row in rows if row.name == name]
    if not found:
        raise UsageError(f"there is no {kind} called {name!r}. There are: {', '.join(row.name for row in rows)}.")
    return found[0]


def _document(row: Row) -> dict[str, str | int]:
    kind: dict[str, str | int] = {"kind": row.kind} if row.kind else {}
    return {"name": row.name, **kind, "summary": row.summary, **row.facts}


def _row(entry: Entry) -> Row:
    facts: dict[str, str | int] = {"signature": entry.signature, "module": entry.module}
    return Row(entry.name, entry.summary, facts, entry.doc)


def _list(rows: list[Row], hint: str) -> None:
    screen = terminal()
    width = max((len(row.name) for row in rows), default=0)
    for kind, group in itertools.groupby(rows, key=lambda row: row.kind):
        if kind:
            screen.print(f"{kind.capitalize()}s", style="dim")
        table = Table.grid(padding=(0, 3, 0, 0))
        table.add_column(no_wrap=True, min_width=width)
        for row in group:
            table.add_row(Text(row.name, style="bold"), row.summary)
        screen.print(table)
    screen.print(f"\n{hint}" if rows else "There are none yet.", style="dim")


def _explain(row: Row) -> None:
    screen = terminal()
    screen.print(Text(row.name, style="bold"))
    facts = Table.grid(padding=(0, 3, 0, 2))
    for fact, value in row.facts.items():
        facts.add_row(Text(fact, style="dim"), str(value))
    screen.print(facts)
    screen.print(Text(f"\n{row.doc}"))
