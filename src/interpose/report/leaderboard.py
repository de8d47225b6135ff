"""A benchmark as one page: a table that sorts and filters, each cell with its report; it loads nothing from anywhere.

The page is made of the rows of `leaderboard.json` alone; see `interpose.benchmark.leaderboard` for their fields.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from interpose.report import figures, words
from interpose.report.page import asset, script_hash

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of numbers.

    Attributes:
        field: of a row.
        name: at its head.
        about: one sentence.
        better: `higher`, `lower`, or empty where neither is.
        kind: how it is written: `area` (with its interval), `number`, `rate`, `time`, `memory` or `count`.
    """

    field: str
    name: str
    about: str
    better: str = ""
    kind: str = "number"


COLUMNS = (
    Column("circuit_cpr", "CPR", "Area under faithfulness over the share of edges kept.", "higher", "area"),
    Column("circuit_cmd", "CMD", "Area between faithfulness and 1.", "lower", "area"),
    Column("circuit_cpr_log", "CPR, ln k", "Mean of faithfulness over ln k: small circuits count.", "higher", "area"),
    Column("circuit_cmd_log", "CMD, ln k", "Mean distance of faithfulness from 1 over ln k.", "lower", "area"),
    Column("uniform_cpr", "CPR, uniform", "The same for random circuits of the same sizes.", "", "area"),
    Column("shuffled_cpr", "CPR, shuffled", "The same for circuits shuffled within destinations.", "", "area"),
    Column("auroc", "AUROC", "How well scores tell the known edges from others.", "higher"),
    Column("published_cpr", "CPR, published", "By others, on their own prompts.", "", "number"),
    Column("published_cmd", "CMD, published", "By others, on their own prompts.", "", "number"),
    Column("accuracy", "Model right", "How often the model prefers the answer.", "", "rate"),
    Column("search_seconds", "Search", "Time of the search alone.", "lower", "time"),
    Column("search_memory", "Memory", "Most memory of the search, above what was held before.", "lower", "memory"),
    Column("forward_passes", "Forward", "Forward passes of the search, of whole batches.", "lower", "count"),
    Column("backward_passes", "Backward", "Backward passes of the search.", "lower", "count"),
)
_MEANS = ("circuit_cpr", "circuit_cmd", "circuit_cpr_log", "circuit_cmd_log", "auroc", "search_seconds")


def as_json(document: Mapping[str, Any]) -> str:
    """The leaderboard's rows as text, for programs."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def html(document: Mapping[str, Any]) -> str:
    """The page's text.

    Args:
        document: what `leaderboard.json` holds.

    Returns:
        HTML.
    """
    rows: Sequence[Row] = document["cells"]
    script = asset("theme.js") + asset("leaderboard.js")
    columns = [column for column in COLUMNS if any(row[column.field] is not None for row in rows)]
    return (
        figures.environment()
        .get_template("leaderboard.html")
        .render(
            rows=rows,
            columns=columns,
            cell=written,
            best=_best(rows),
            methods=_methods(rows),
            means=[column for column in columns if column.field in _MEANS],
            sources=sorted({row["published_source"] for row in rows if row["published_source"]}),
            memory_of=sorted({row["search_memory_of"] for row in rows if row["search_memory_of"]}),
            choices={name: _distinct(rows, name) for name in ("model", "task")},
            why=why,
            given=given,
            versions=document["versions"],
            style=Markup(asset("style.css")),
            # Both come from this package and from nowhere else, so they may stand in the page as they are.
            script=Markup(script),
            script_hash=script_hash(script),
        )
    )


def written(row: Row, column: Column) -> str:
    """One number of a row, as it is shown; empty where it was not measured."""
    value = row[column.field]
    return "" if value is None else _formats[column.kind](value)


def why(row: Row) -> str:
    """Why a cell has no numbers."""
    if row["status"] == "too long":
        return f"blank: would take about {_hours(row['estimated_hours'])}"
    if row["status"] == "at chance":
        return f"the model is at chance: it prefers the answer in {words.percent(row['accuracy'])} of pairs"
    if row["status"] == "does not apply":
        return f"does not apply: {row['why']}"
    return f"failed: {row['why']}"


def given(row: Row) -> str:
    """Where the scores of a file came from, and which way round they were."""
    if row["scores_positive"] is None:
        return "from a file"
    said = f"from a file; positive {row['scores_positive']}"
    if row["scores_highest"] is None:
        return said
    return f"{said} (checked: {words.number(row['scores_highest'])} against {words.number(row['scores_lowest'])})"


_formats = {
    "area": words.number,
    "number": words.number,
    "rate": words.percent,
    "time": words.duration,
    "memory": words.memory,
    "count": words.count,
}


def _hours(hours: float) -> str:
    return words.duration(3600 * hours) if hours < 1 else f"{hours:,.1f}{words.SPACE}hours"


def _distinct(rows: Iterable[Row], name: str) -> list[str]:
    return list(dict.fromkeys(row[name] for row in rows))


def _best(rows: Sequence[Row]) -> set[tuple[str, str]]:
    """The key and field of the best cells: among those of one model, task and counterfactual, where there are two."""
    found = set()
    for column in COLUMNS:
        if column.better and column.kind in ("area", "number"):
            for group in _groups(rows):
                measured = [row for row in group if row[column.field] is not None]
                if len(measured) > 1:
                    better = max if column.better == "higher" else min
                    best = written(better(measured, key=lambda row: row[column.field]), column)
                    # What looks the same is shown the same.
                    found |= {(row["key"], column.field) for row in measured if written(row, column) == best}
    return found


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row["status"] == "done":
            groups.setdefault((row["model"], row["task"], row["counterfactual"]), []).append(row)
    return list(groups.values())


def _methods(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each method its means over the cells that are done, best CMD first."""
    made = []
    for method in _distinct(rows, "method"):
        done = [row for row in rows if row["method"] == method and row["status"] == "done"]
        means: dict[str, Any] = {"method": method, "cells": len(done)}
        for field in _MEANS:
            values = [row[field] for row in done if row[field] is not None]
            means[field] = statistics.fmean(values) if values else None
        made.append(means)
    return sorted(made, key=lambda means: (means["circuit_cmd"] is None, means["circuit_cmd"] or 0.0))
