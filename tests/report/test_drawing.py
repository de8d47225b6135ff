"""What is drawn of a circuit hangs together, is its strongest part, and can be read."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from interpose.report import Result, circuit
from interpose.report.circuit import CircuitFigure
from interpose.report.nodes import Node, parse
from interpose.report.result import EdgeScore
from interpose.report.scales import Axis, ticks
from interpose.report.selection import links, select

SOURCES = ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1"]
ENDS = ["a0.h0<q>", "a0.h1<v>", "m0", "a1.h0<k>", "a1.h0<q>", "a1.h1<v>", "m1", "logits"]
LEGAL = [(s, d) for s in SOURCES for d in ENDS if parse(s)[0].depth < parse(d)[0].depth]


def reachable(pairs: set[tuple[Node, Node]], start: Node) -> set[Node]:
    seen, queue = {start}, [start]
    while queue:
        at = queue.pop()
        new = {d for s, d in pairs if s == at} - seen
        seen |= new
        queue += new
    return seen


edge_sets = st.dictionaries(st.sampled_from(LEGAL), st.floats(-1, 1, allow_nan=False).filter(bool), max_size=30)


@given(edge_sets, st.integers(3, 12))
def test_every_drawn_line_lies_on_a_path_from_the_input_to_the_logits(edges: dict, most: int) -> None:
    scores = [EdgeScore(source=s, destination=d, score=score) for (s, d), score in edges.items()]
    drawn = select(scores, most)
    pairs = {(link.source, link.destination) for link in drawn.links}
    forward = reachable(pairs, Node("input"))
    backward = reachable({(d, s) for s, d in pairs}, Node("logits"))
    assert all(s in forward and d in backward for s, d in pairs)
    assert len(pairs) <= most
    everything = {(parse(s)[0], parse(d)[0]) for s, d in edges}
    connected = Node("logits") in reachable(everything, Node("input"))
    # A path of this graph has at most five lines, so a smaller picture may have no room for the first one.
    assert bool(pairs) == connected or most < 5


@given(edge_sets)
def test_with_room_enough_all_that_carries_something_is_drawn(edges: dict) -> None:
    scores = [EdgeScore(source=s, destination=d, score=score) for (s, d), score in edges.items()]
    everything = {(parse(s)[0], parse(d)[0]) for s, d in edges}
    forward = reachable(everything, Node("input"))
    backward = reachable({(d, s) for s, d in everything}, Node("logits"))
    expected = {(s, d) for s, d in everything if s in forward and d in backward}
    drawn = select(scores, 1000)
    assert {(link.source, link.destination) for link in drawn.links} == expected
    assert drawn.joining == 0


def test_the_strongest_lines_are_drawn_with_what_joins_them() -> None:
    ends = [("input", "m0", 0.01), ("m0", "a1.h0<q>", 0.9), ("a1.h0", "logits", 0.2), ("input", "a1.h0<q>", 0.05)]
    drawn = select([EdgeScore(source=s, destination=d, score=score) for s, d, score in ends], 3)
    assert [(link.source.label, link.destination.label) for link in drawn.links] == [
        ("m0", "1.0"),
        ("1.0", "logits"),
        ("input", "m0"),
    ]
    assert drawn.joining == 1


def test_edges_into_one_head_are_one_line_that_keeps_their_scores() -> None:
    ends = [("m0", "a1.h0<q>", 0.5), ("m0", "a1.h0<k>", -0.25), ("m0", "a1.h0<v>", 0.125)]
    (link,) = links([EdgeScore(source=s, destination=d, score=score) for s, d, score in ends])
    assert link.scores == (("k", -0.25), ("q", 0.5), ("v", 0.125))
    assert (link.total, link.strength) == (0.375, 0.875)


@pytest.mark.parametrize("kind", ["holds", "tiny", "flat", "large"])
@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_parts_do_not_overlap_and_nothing_leaves_the_paper(
    drawings: dict[str, CircuitFigure], kind: str, shape: str
) -> None:
    drawing = getattr(drawings[kind], shape)
    boxes = [(p.x - p.width / 2, p.y - p.height / 2, p.x + p.width / 2, p.y + p.height / 2) for p in drawing.pills]
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0 and top >= 0 and right <= drawing.width and bottom <= drawing.height
        for other in boxes[:i]:
            apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
            assert apart, f"{drawing.pills[i].label} overlaps another part"
    for line in drawing.lines:
        for x, y in curve_points(line.path):
            assert -1 <= x <= drawing.width + 1 and -1 <= y <= drawing.height + 1


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_lines_keep_clear_of_parts_they_only_pass(drawings: dict[str, CircuitFigure], shape: str) -> None:
    drawing = getattr(drawings["holds"], shape)
    struck = 0
    for line in drawing.lines:
        for pill in drawing.pills:
            if pill.key in (line.source, line.destination):
                continue
            near = [(x, y) for x, y in curve_points(line.path) if abs(x - pill.x) < 12 and abs(y - pill.y) < 4]
            struck += bool(near)
    assert struck <= 0.02 * len(drawing.lines) * len(drawing.pills)


def curve_points(path: str, steps: int = 40) -> list[tuple[float, float]]:
    numbers = [float(text) for text in re.findall(r"-?\d+\.?\d*", path)]
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = zip(numbers[::2], numbers[1::2], strict=True)
    made = []
    for i in range(steps + 1):
        t = i / steps
        a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
        made.append((a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3))
    return made


def test_the_same_circuit_is_always_drawn_the_same(make: Callable[..., Result], tmp_path: Path) -> None:
    path = make(layers=6, heads=4, edges=40).save(tmp_path / "result.json")
    code = "import sys; from interpose.report import Result, html; print(html(Result.load(sys.argv[1])))"
    pages = {
        subprocess.check_output(
            [sys.executable, "-c", code, str(path)], env={**os.environ, "PYTHONHASHSEED": seed}, text=True
        )
        for seed in ("1", "2")
    }
    assert len(pages) == 1


def test_a_circuit_without_a_path_is_not_drawn(make: Callable[..., Result]) -> None:
    data = make(layers=1, heads=1, edges=5).model_dump()
    data["chosen"] = {"fraction": 0.05, "edges": [{"source": "input", "destination": "m0", "score": 1.0}], "nodes": []}
    assert circuit.figure(Result.model_validate(data)) is None


@given(st.floats(-50, 50), st.floats(0.01, 50))
def test_ticks_are_round_few_and_inside(low: float, span: float) -> None:
    made = ticks(low, low + span)
    assert 2 <= len(made) <= 13
    assert all(low - 1e-6 * span <= value <= low + span + 1e-6 * span for value in made)
    steps = {round((b - a) / (made[1] - made[0]), 6) for a, b in zip(made, made[1:], strict=False)}
    assert steps == {1.0}


def test_a_logarithmic_axis_gives_equal_ratios_equal_room() -> None:
    axis = Axis(0.001, 1.0, 0.0, 300.0, log=True)
    assert [round(axis(value), 6) for value in (0.001, 0.01, 0.1, 1.0)] == [0, 100, 200, 300]
