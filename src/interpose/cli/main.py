"""Runs the command that is asked for, and turns failures into one clear message and an exit code."""

import inspect
import json
import os
import sys
import traceback
from collections.abc import Sequence

from interpose import __version__, discovery
from interpose.errors import InterposeError, UsageError

COMMANDS = "interpose.cli"
DONE, FAILED, WRONG_USE, STOPPED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `interpose` once.

    Args:
        arguments: What follows `interpose` on the command line; by default, the command line itself.

    Returns:
        The exit code: 0 done, 1 the job failed, 2 wrong use, 130 stopped from the keyboard.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    as_json = "--json" in words
    try:
        return _dispatch([word for word in words if word != "--debug"])
    except KeyboardInterrupt:
        print("interpose: stopped.", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        # Whoever read the output has gone, as `head` does; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if debug:
            traceback.print_exc()
        _report(error, as_json=as_json, debug=debug)
        return WRONG_USE if isinstance(error, UsageError) else FAILED


def _dispatch(words: list[str]) -> int:
    if not words:
        _help()
        return WRONG_USE
    name, *rest = words
    if name in ("-h", "--help"):
        _help()
    elif name == "--version":
        print(f"interpose {__version__}")
    elif name.startswith("-"):
        raise UsageError(
            f"{name} is not an option of interpose itself: a command comes first, as in `interpose locate ioi`."
        )
    else:
        return _run(name, rest)
    return DONE


def _run(name: str, words: list[str]) -> int:
    import tyro

    from interpose.cli.base import Command, examples, without_examples

    command: type[Command] = discovery.load(COMMANDS, name)
    doc = inspect.getdoc(command) or ""
    config = (tyro.conf.FlagCreatePairsOff,)
    try:
        chosen = tyro.cli(
            command, prog=f"interpose {name}", description=without_examples(doc), args=words, config=config
        )
    except SystemExit as stop:
        if not stop.code and examples(doc):
            print("Examples:", *(f"  {example}" for example in examples(doc)), sep="\n")
        return int(stop.code or 0)
    chosen.run()
    return DONE


def _help() -> None:
    from rich.table import Table

    from interpose.cli.base import examples, terminal

    commands = discovery.entries(COMMANDS)
    table = Table.grid(padding=(0, 3, 0, 2))
    for command in commands:
        table.add_row(command.name, command.summary)
    screen = terminal()
    screen.print(
        "One causal instrument for neural networks: find the circuit that carries a behaviour, prove it, show it.\n"
    )
    screen.print("Usage: interpose COMMAND [options]\n\nCommands:")
    screen.print(table)
    screen.print("\nExamples:")
    for example in (line for command in commands for line in examples(command.doc)[:1]):
        screen.print(f"  {example}")
    screen.print(
        "\n`interpose COMMAND --help` explains one command. `--json` prints for programs, `--debug` shows where an"
    )
    screen.print("error comes from, `--version` says which interpose this is.")
    screen.print("Exit codes: 0 done, 1 the job failed, 2 wrong use.")


def _report(error: Exception, *, as_json: bool, debug: bool) -> None:
    kind = type(error).__name__
    message = str(error) if isinstance(error, InterposeError) else f"{kind}: {error}"
    if as_json:
        print(json.dumps({"error": kind, "message": message}, ensure_ascii=False), file=sys.stderr)
        return
    print(f"interpose: {message}", file=sys.stderr)
    if not isinstance(error, InterposeError) and not debug:
        print("This was not foreseen. Run the same command with --debug to see where it comes from.", file=sys.stderr)
