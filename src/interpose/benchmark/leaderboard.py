"""From the cells of a matrix to rows that can be compared: for the page, as CSV and as JSON."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from interpose.benchmark.cell import Cell
from interpose.benchmark.published import Published, published
from interpose.benchmark.record import Record
from interpose.report.evidence import Estimate

SCHEMA_VERSION = 1
AREAS = ("cpr", "cmd", "cpr_log", "cmd_log")


def row(cell: Cell, record: Record, page: str) -> dict[str, Any]:
    """One cell as flat, plain data; what was not measured is None.

    Args:
        cell: what was asked.
        record: what became of it.
        page: where its report lies, from the leaderboard; empty where there is none.
    """
    result, beside = record.result, published(cell.model, cell.task, cell.method_label)
    # What finding the scores of a file cost is not known.
    cost = record.cost if cell.scores is None else None
    made: dict[str, Any] = {
        "model": cell.model,
        "task": cell.task,
        "counterfactual": result.question.counterfactual if result else cell.counterfactual,
        "method": cell.method_label,
        "units": record.units,
        **_given(cell, record),
        "status": record.status,
        "why": record.failure.message if record.failure else None,
        "estimated_hours": record.estimated_hours,
        "accuracy": record.accuracy.rate if record.accuracy else None,
    }
    for ranking in ("circuit", "uniform", "shuffled"):
        for area in AREAS:
            estimate: Estimate | None = getattr(result.areas[ranking], area) if result else None
            made |= _spread(f"{ranking}_{area}", estimate)
    made |= {
        "above_controls": result.verdict.holds if result else None,
        "auroc": record.auroc,
        "edges": result.edges if result else None,
        "weighted_edges": list(record.weighted_edges) or None,
        "seconds": record.seconds,
        "search_seconds": cost.seconds if cost else None,
        "search_memory": cost.memory if cost else None,
        "search_memory_of": cost.memory_of if cost else None,
        "forward_passes": cost.forward if cost else None,
        "backward_passes": cost.backward if cost else None,
        **_beside(beside),
        "seed": cell.seed,
        "examples": cell.examples,
        "proof": cell.proof,
        "key": record.key,
        "page": page or None,
    }
    return made


def document(rows: Sequence[Mapping[str, Any]], versions: Mapping[str, str]) -> dict[str, Any]:
    """The whole leaderboard, ready for JSON."""
    return {"schema_version": SCHEMA_VERSION, "track": "circuit", "versions": dict(versions), "cells": list(rows)}


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV, one a cell, with a line of names first; lists are joined by blanks."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for each in rows:
        flat = {k: " ".join(f"{x:g}" for x in v) if isinstance(v, list) else v for k, v in each.items()}
        writer.writerow(flat)
    return text.getvalue()


def _spread(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _given(cell: Cell, record: Record) -> dict[str, str | float | None]:
    found = record.given
    return {
        "scores_file": cell.scores,
        "scores_sha256": found.sha256 if found else None,
        "scores_sign": cell.sign,
        "scores_positive": found.positive_in_file if found else None,
        "scores_highest": found.highest if found else None,
        "scores_lowest": found.lowest if found else None,
    }


def _beside(found: Published | None) -> dict[str, float | str | None]:
    return {
        "published_cpr": found.cpr if found else None,
        "published_cmd": found.cmd if found else None,
        "published_auroc": found.auroc if found else None,
        "published_source": found.source if found else None,
    }
