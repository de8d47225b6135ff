"""One's own pairs, one JSON object a line.

    {"clean": "Kate saw Paul. Paul met", "corrupt": "Kate saw Paul. Kate met", "answer": " Kate", "wrong": " Paul",
     "roles": {"first": "Kate", "last": [17, 20]}}

(on one line). A role is a word that stands in the clean prompt once, or the characters `[start, stop]`.
"""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from interpose.errors import TaskError
from interpose.tasks._table import Row, Source, Table, Where, check_count, no_twice

FIELDS = ("clean", "corrupt", "answer", "wrong")


def kinds(source: Source) -> dict[str, str]:
    """The counterfactuals that such a file has: one."""
    return {"corrupt": f"as `corrupt` says in {source.name}"}


def read(source: Source, _: Any, kind: str) -> Table:
    """Read a file of JSON lines; blank lines are skipped.

    Raises:
        TaskError: a line is not such an object, or the roles of two lines have other names.
    """
    rows = []
    # Not splitlines(): that also splits at characters which JSON allows inside a text.
    for number, line in enumerate(source.text.split("\n"), start=1):
        if line.strip():
            rows.append(_row(source, number, line))
            check_count(source, len(rows))
    check_count(source, len(rows))
    for row in rows:
        if set(row.roles) != set(rows[0].roles):
            raise TaskError(
                f"{row.place}: its roles are {_listed(row.roles)}, but those of {rows[0].place} are "
                f"{_listed(rows[0].roles)}; expected the same roles in every line."
            )
    fields = {"clean": "'clean'", "corrupt": "'corrupt'", "answers": "'answer'", "wrong": "'wrong'"}
    return Table(tuple(rows), kind, fields)


def _row(source: Source, number: int, line: str) -> Row:
    said = _object(source, number, line)
    missing = [name for name in FIELDS if name not in said]
    if missing:
        raise source.error(number, f"{_quoted(missing)} missing; expected the fields {_quoted(FIELDS)}.")
    for name in said:
        if name not in (*FIELDS, "roles"):
            near = "".join(f" Did you mean {other!r}?" for other in get_close_matches(name, (*FIELDS, "roles"), n=1))
            raise source.error(
                number, f"there is no field {name!r}.{near} Expected {_quoted(FIELDS)} and, if you like, 'roles'."
            )
    texts = {name: source.prompt(number, name, said[name]) for name in FIELDS}
    return Row(source.place(number), **texts, roles=_roles(source, number, said.get("roles", {})))


def _object(source: Source, number: int, line: str) -> dict[str, Any]:
    hook = no_twice(lambda what: source.error(number, what))
    try:
        said = json.loads(line, object_pairs_hook=hook)
    except (ValueError, RecursionError) as error:
        raise source.error(number, f"this is not JSON ({error}). Write one JSON object on each line.") from error
    if not isinstance(said, dict):
        raise source.error(number, f"this is a {type(said).__name__}; expected an object with {_quoted(FIELDS)}.")
    return said


def _roles(source: Source, number: int, said: Any) -> Mapping[str, Where]:
    if not isinstance(said, dict):
        raise source.error(number, f"'roles' is a {type(said).__name__}; expected an object from names to words.")
    found: dict[str, Where] = {}
    for name, where in said.items():
        if isinstance(where, str):
            found[source.prompt(number, "roles", name)] = source.prompt(number, f"roles.{name}", where)
        elif isinstance(where, list) and len(where) == 2 and all(type(edge) is int for edge in where):
            found[source.prompt(number, "roles", name)] = (where[0], where[1])
        else:
            raise source.error(
                number,
                f"the role {name!r} is {where!r}; expected a word of the clean prompt, or its characters as "
                "[start, stop].",
            )
    return found


def _quoted(names: Any) -> str:
    return ", ".join(map(repr, names))


def _listed(roles: Mapping[str, Where]) -> str:
    return ", ".join(sorted(roles)) or "none"
