"""The page of a benchmark: what stands in it, and what may not."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interpose.report.leaderboard import COLUMNS, as_json, html, why
from interpose.report.words import SPACE

Board = Callable[..., dict[str, Any]]


def test_it_needs_nothing_but_itself_and_shows_nothing_that_runs(leaderboard_page: Path) -> None:
    page = leaderboard_page.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert not any(word in page for word in ('src="http', 'href="//', "@import", "url(http"))
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_columns_that_no_cell_has_are_left_out(make_board: Board) -> None:
    without = html(make_board(("eap", {})))
    assert "AUROC" not in without and "published" not in without
    known = html(make_board(("eap", {"auroc": 0.75, "published_cpr": 1.2, "published_source": "A paper, 2025"})))
    assert "AUROC" in known and "A paper, 2025" in known
    assert {column.better for column in COLUMNS} == {"", "higher", "lower"}


def test_the_best_of_one_model_and_task_is_bold(make_board: Board) -> None:
    page = html(
        make_board(
            ("a", {"circuit_cpr": 1.0, "circuit_cmd": 0.5}),
            ("b", {"circuit_cpr": 1.3, "circuit_cmd": 0.6}),
            ("c", {"circuit_cpr": 1.1, "circuit_cmd": 0.4, "model": "other"}),
        )
    )
    rows = re.findall(r'<tr data-model.*?data-method="(\w)".*?</tr>', page)
    cells = dict(zip(rows, re.findall(r"<tr data-model.*?</tr>", page), strict=True))
    assert "<b>0.50</b>" in cells["a"] and "<b>1.00</b>" not in cells["a"]
    assert "<b>1.30</b>" in cells["b"] and "<b>0.60</b>" not in cells["b"]
    assert "<b>" not in cells["c"], "it is the only one of its model"


def test_means_are_over_the_cells_that_are_done_best_first(make_board: Board) -> None:
    page = html(
        make_board(
            ("slow", {"status": "too long", "estimated_hours": 3.0}),
            ("worse", {"circuit_cmd": 0.4}),
            ("better", {"circuit_cmd": 0.1}),
            ("better", {"circuit_cmd": 0.3, "task": "other"}),
            ("better", {"status": "failed", "why": "no", "task": "third"}),
        )
    )
    table = page.partition('aria-label="By method"')[2].partition("</table>")[0]
    found = re.findall(r'<th scope="row"[^>]*>(\w+)</th><td class="n" data-v="(\d)">', table)
    assert found == [("better", "2"), ("worse", "1"), ("slow", "0")]
    assert 'data-v="0.2"' in table


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"status": "too long", "estimated_hours": 12.54}, f"blank: would take about 12.5{SPACE}hours"),
        ({"status": "too long", "estimated_hours": 0.5}, f"blank: would take about 30{SPACE}min 0{SPACE}s"),
        (
            {"status": "at chance", "accuracy": 0.52},
            f"the model is at chance: it prefers the answer in 52{SPACE}% of pairs",
        ),
        ({"status": "does not apply", "why": "It scores heads."}, "does not apply: It scores heads."),
        ({"status": "failed", "why": "no memory"}, "failed: no memory"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_cell_without_numbers_says_why(make_board: Board, fields: dict[str, Any], said: str) -> None:
    board = make_board(("x", fields), ("y", {}))
    assert why(board["cells"][0]) == said
    assert said in html(board).replace("&nbsp;", SPACE)


def test_as_json_it_is_what_it_was(make_board: Board) -> None:
    board = make_board(("eap", {}))
    assert json.loads(as_json(board)) == board
