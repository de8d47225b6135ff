"""Where a benchmark's cells lie: a record, its scores and its page each, whole or absent."""

import os
import re
from pathlib import Path
from typing import final

from interpose.benchmark.cell import Cell, Outcome
from interpose.benchmark.record import Record
from interpose.errors import InterposeError
from interpose.report import write
from interpose.search.scores import Scores


@final
class Store:
    """The cells of a folder.

    A cell is three files of one name: `.json` (the record), `.safetensors` (the scores) and `.html` (the report). The
    record is written last and at once, so that where it is, the cell is whole.

    Attributes:
        folder: where they lie.

    Args:
        out: the folder of the benchmark.
    """

    def __init__(self, out: Path) -> None:
        """Make the folder."""
        self.folder = out / "cells"
        self.folder.mkdir(parents=True, exist_ok=True)

    def name(self, cell: Cell, key: str) -> str:
        """What a cell's files are called, without their endings."""
        words = (Path(cell.model).name, cell.task, cell.method_label, key)
        return "--".join(re.sub(r"[^\w.=,-]", "-", word) for word in words)

    def find(self, cell: Cell, key: str, hours: float | None) -> Record | None:
        """The record of a cell that need not be run again; None for one that is absent, damaged, or failed.

        Args:
            cell: the cell.
            key: of the cell.
            hours: the limit now: a cell that was stopped under another one is run if it would now have the time.
        """
        name = self.name(cell, key)
        try:
            record = Record.load(self.folder / f"{name}.json")
            if record.status == "done":
                Scores.load(self.folder / f"{name}.safetensors")
        except InterposeError:
            return None
        if record.status == "failed":
            return None
        if record.estimated_hours is not None and (hours is None or hours >= record.estimated_hours):
            return None
        return record

    def put(self, cell: Cell, outcome: Outcome) -> Path:
        """Write a cell, and return the path of its record."""
        record, scores = outcome
        name = self.name(cell, record.key)
        if scores is not None:
            self._replace(f"{name}.safetensors", scores)
        if record.result is not None:
            write(record.result, self.folder / f"{name}.html")
        return self._replace(f"{name}.json", (record.model_dump_json(indent=1) + "\n").encode())

    def _replace(self, name: str, content: bytes) -> Path:
        draft = self.folder / f".{name}.{os.getpid()}"
        draft.write_bytes(content)
        return draft.replace(self.folder / name)
