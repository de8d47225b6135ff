"""The JSON that the library auto-circuit reads (https://github.com/UFO-101/auto-circuit).

    {"prompts": [{"clean": "...", "corrupt": "...", "answers": [" Kate"], "wrong_answers": [" Paul"]}, ...],
     "word_idxs": {"subject": 3}, "seq_labels": ["When", ...]}

Of several answers the first is compared with the first wrong one, and a warning says so. `word_idxs` become roles: they
number the tokens of every prompt, special ones not counted, so that all prompts need the same number of tokens.
"""

import json
from typing import Any

from interpose.errors import TaskError
from interpose.tasks._table import Row, Source, Table, check_count, no_twice

_FIELDS = ("clean", "corrupt", "answers", "wrong_answers")
_SHAPE = 'expected {"prompts": [{"clean": ..., "corrupt": ..., "answers": [...], "wrong_answers": [...]}, ...]}'


def kinds(source: Source) -> dict[str, str]:
    """The counterfactuals that such a file has: one."""
    return {"corrupt": f"as `corrupt` says in {source.name}"}


def read(source: Source, tokenizer: Any, kind: str) -> Table:
    """Read such a file.

    Raises:
        TaskError: it is not of this form.
    """
    said = _document(source)
    prompts, numbers = said.get("prompts"), said.get("word_idxs", {})
    if not isinstance(prompts, list):
        raise TaskError(f"{source.name}: there is no list 'prompts'; {_SHAPE}.")
    check_count(source, len(prompts))
    if not isinstance(numbers, dict) or not all(type(number) is int for number in numbers.values()):
        raise source.error("word_idxs", "expected an object from names to the numbers of tokens.")
    most = max(len(_field(source, row, entry, name)) for row, entry in enumerate(prompts) for name in _FIELDS[2:])
    rows = tuple(_row(source, row, entry, numbers) for row, entry in enumerate(prompts))
    notes = (_several(source, most),) if most > 1 else ()
    labels = said.get("seq_labels")
    if numbers:
        _check_lengths(source, tokenizer, rows, labels if isinstance(labels, list) else None)
    fields = {"clean": "'clean'", "corrupt": "'corrupt'", "answers": "answers[0]", "wrong": "wrong_answers[0]"}
    return Table(rows, kind, fields, notes)


def _document(source: Source) -> dict[str, Any]:
    hook = no_twice(lambda what: TaskError(f"{source.name}: {what}"))
    try:
        said = json.loads(source.text, object_pairs_hook=hook)
    except json.JSONDecodeError as error:
        raise source.error(error.lineno, f"this is not JSON ({error}).") from error
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{source.name}: this is not JSON that can be read ({error}).") from error
    if not isinstance(said, dict):
        raise TaskError(f"{source.name}: this is a {type(said).__name__}; {_SHAPE}. JSON lines end in .jsonl.")
    return said


def _field(source: Source, row: int, entry: Any, name: str) -> Any:
    place = f"prompts[{row}]"
    if not isinstance(entry, dict):
        raise source.error(place, f"this is a {type(entry).__name__}; expected an object.")
    if name not in entry:
        raise source.error(place, f"{name!r} is missing; expected {', '.join(map(repr, _FIELDS))}.")
    value = entry[name]
    if name in _FIELDS[2:] and (not isinstance(value, list) or not value):
        raise source.error(place, f"{name!r} is no list of at least one text.")
    if name in _FIELDS[:2] and isinstance(value, list):
        raise source.error(
            place, f"{name!r} is a list of token ids, which belong to one tokenizer; expected the prompt as a text."
        )
    return value


def _row(source: Source, row: int, entry: Any, numbers: dict[str, int]) -> Row:
    values = {name: _field(source, row, entry, name) for name in _FIELDS}
    place = f"prompts[{row}]"
    return Row(
        source.place(place),
        clean=source.prompt(place, "clean", values["clean"]),
        corrupt=source.prompt(place, "corrupt", values["corrupt"]),
        answer=source.prompt(place, "answers[0]", values["answers"][0]),
        wrong=source.prompt(place, "wrong_answers[0]", values["wrong_answers"][0]),
        roles=numbers,
    )


def _several(source: Source, most: int) -> str:
    return (
        f"{source.name} has up to {most} answers or wrong answers a prompt. The first answer is compared with the "
        "first wrong one; the others are left out."
    )


def _check_lengths(source: Source, tokenizer: Any, rows: tuple[Row, ...], labels: list[Any] | None) -> None:
    """See that numbers of tokens mean the same on every prompt, and what they meant to whoever wrote them."""
    found = tokenizer([row.clean for row in rows], add_special_tokens=False)["input_ids"]
    wanted = len(labels) if labels else len(found[0])
    whose = "as many as 'seq_labels'" if labels else "as many as the first"
    for row, ids in zip(rows, found, strict=True):
        if len(ids) != wanted:
            raise TaskError(
                f"{row.place}: the clean prompt has {len(ids)} tokens of this tokenizer; expected {wanted}, {whose}, "
                "since 'word_idxs' number the tokens of every prompt. Use the tokenizer that the file was made with, "
                "or take 'word_idxs' out of the file to read it without roles."
            )
    for name, number in rows[0].roles.items():
        if not isinstance(number, int) or not 0 <= number < wanted:
            raise source.error(f"word_idxs[{name!r}]", f"{number} is no token of a prompt that has {wanted}.")
