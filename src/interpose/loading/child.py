"""Run one slow step in a process of its own: it can be stopped, its chatter goes to a file, its memory comes back."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def run(arguments: list[str], log: Path, environment: Mapping[str, str], look: Callable[[], None]) -> int:
    """Run this Python with some arguments until it ends.

    Args:
        arguments: what follows `python`, such as `["-m", "pip", ...]`.
        log: file for what it says.
        environment: variables to set beside the present ones.
        look: called ten times a second meanwhile.

    Returns:
        its exit status. If this process is interrupted, the child is killed first.
    """
    # -P keeps the working folder, and a stray pip.py in it, off the import path.
    command = [sys.executable, "-P", *arguments]
    everything = {**os.environ, **environment}
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=everything
        ) as process,
    ):
        try:
            while process.poll() is None:
                look()
                time.sleep(0.1)
        except BaseException:
            process.kill()
            raise
    return process.returncode


def said(log: Path) -> list[str]:
    """The lines that it left in its log, without empty ones."""
    text = log.read_text(encoding="utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]
