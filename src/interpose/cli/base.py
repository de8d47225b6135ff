"""The shape of a command, and how commands write to the terminal.

A command is one file here, found by its name: `interpose locate` is the class `Locate` in `locate.py`. The class is a
frozen dataclass; its fields are the arguments, made into options by tyro, each explained by the string under it:

    @dataclass(frozen=True)
    class Locate:
        '''Find the circuit that a model uses for a task, prove it and show it.

        Anything more that `interpose locate --help` should say. Then, under `Examples:` as in any Google docstring, one
        command a line.
        '''

        task: Argument
        '''Which task; `interpose tasks` lists them.'''
        examples: int = 64
        '''How many pairs to search with.'''
        json: bool = False
        '''Print the result as JSON.'''

        def run(self) -> None:
            import torch  # heavy libraries only here, so that `--help` stays quick

The first line of the docstring is what `interpose --help` says of the command, and the first example is shown there
too. `run` does the job. It raises `InterposeError` where the job fails (exit code 1) and `UsageError` where the
arguments are wrong (exit code 2); `main` prints the message. With `--json` a command writes one JSON document to
standard output and nothing else there: progress goes to standard error.
"""

import json
import textwrap
from pathlib import Path
from typing import Annotated, Any, Protocol

import tyro
from rich.console import Console

from interpose.errors import InterposeError

Argument = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
"""An argument that must be given, without a flag."""
OptionalArgument = Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")]
"""An argument that may be given, without a flag; None where it is not."""


class Command(Protocol):
    """What every command is, besides a frozen dataclass."""

    def run(self) -> None:
        """Do the job, and write its result to standard output.

        Raises:
            InterposeError: the job failed.
            UsageError: the arguments cannot be meant.
        """
        ...


def terminal() -> Console:
    """Standard output, for people: colours where they show, and wide lines where nothing limits the width."""
    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=120)


def write_json(value: Any) -> None:
    """Write one JSON document to standard output, for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def examples(doc: str) -> list[str]:
    """The lines under `Examples:` in a docstring."""
    _, _, after = doc.partition("\nExamples:\n")
    indented = after.split("\n\n")[0].rstrip()
    return textwrap.dedent(indented).splitlines()


def without_examples(doc: str) -> str:
    """A docstring up to its `Examples:`."""
    return doc.partition("\nExamples:\n")[0].strip()


def make_folder(out: Path) -> None:
    """Make the folder that results go to, and see that it can be written to, before anything slow is done.

    Raises:
        InterposeError: it cannot.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        raise InterposeError(
            f"Nothing can be written to {out}: {error.strerror}. Name another folder: --out."
        ) from error
