"""Where the parts of a drawn circuit stand.

Depth gives each part its column; a short seeded search gives it a lane, and each line a bow, so that lines keep clear
of the parts they pass, of one another, and of long detours. Pure geometry: a column is a number of units along the way
from the input to the logits, a lane a number of units across.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interpose.report.nodes import Node
from interpose.report.selection import Link

_CLEARANCE = 0.62  # lanes between a line and a part it passes
_BESIDE = 0.95  # columns closer than this leave no room for two parts in one lane
_ALONG = np.array([[0.15, 0.3, 0.5, 0.7, 0.85]])  # of a line: where it may leave the paper
_BOWS = (0.0, -0.8, 0.8, -1.6, 1.6, -2.6, 2.6)


@dataclass(frozen=True)
class Layout:
    """A placement.

    Attributes:
        columns: Units from the input, for each part.
        lanes: Units across, for each part.
        bows: How far each line bends aside, in lanes, in the order of the lines given.
        width: The largest column.
        height: The number of lanes.
    """

    columns: dict[Node, float]
    lanes: dict[Node, float]
    bows: tuple[float, ...]
    width: float
    height: int


def columns(nodes: Sequence[Node]) -> dict[Node, float]:
    """Give each part its place between the input and the logits; layers without a part take little room."""
    place: dict[Node, float] = {}
    last, at = None, -1.0
    for node in sorted(nodes, key=lambda node: node.depth):
        if last is None:
            at = 0.0
        elif node.depth != last.depth:
            skipped = node.kind != "logits" and node.layer > last.layer + 1
            outer = last.kind == "input" or node.kind == "logits"
            at += 0.8 if node.layer == last.layer else 1.5 if outer else 1.25 if skipped else 1.0
        place[node] = at
        last = node
    return place


class _Board:
    """The drawing as arrays, and what it costs."""

    def __init__(self, nodes: Sequence[Node], links: Sequence[Link], at: dict[Node, float], height: int) -> None:
        index = {node: i for i, node in enumerate(nodes)}
        self.height = height
        self.column = np.array([at[node] for node in nodes])
        self.start = np.array([index[link.source] for link in links])
        self.stop = np.array([index[link.destination] for link in links])
        strengths = np.array([link.strength for link in links])
        self.weight = 0.5 + 0.5 * np.sqrt(strengths / max(strengths.max(), 1e-30))
        stops = np.unique(self.column)
        begin, end = self.column[self.start][:, None], self.column[self.stop][:, None]
        self.t = (stops[None] - begin) / np.maximum(end - begin, 1e-9)
        self.length = (end - begin)[:, 0]
        self.t = np.clip(self.t, 0, 1)
        self.passes = (self.t > 1e-6) & (self.t < 1 - 1e-6)
        self.slot = np.searchsorted(stops, self.column)
        pairs = np.triu(np.ones((len(links), len(links)), bool), 1)
        together = pairs & ((self.passes[:, None] & self.passes[None]).sum(-1) > 0)
        self.first, self.second = np.nonzero(together)
        self.both = self.passes[self.first] & self.passes[self.second]
        beside = np.abs(self.column[:, None] - self.column[None]) < _BESIDE
        self.left, self.right = np.nonzero(np.triu(beside, 1))

    def heights(self, lane: np.ndarray, bow: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Where each line is after some part of its way: a cubic whose ends are level, plus its bow."""
        a, b = lane[self.start][:, None], lane[self.stop][:, None]
        return a + (b - a) * t * t * (3 - 2 * t) + 3 * bow[:, None] * t * (1 - t)

    def cost(self, lane: np.ndarray, bow: np.ndarray) -> float:
        y = self.heights(lane, bow, self.t)
        near = np.maximum(0, _CLEARANCE - np.abs(y[:, self.slot] - lane[None, :])) * self.passes[:, self.slot]
        gap = y[self.first] - y[self.second]
        close = (np.maximum(0, 0.22 - np.abs(gap)) * self.both).sum()
        crossings = ((gap[:, 1:] * gap[:, :-1] < 0) & self.both[:, 1:] & self.both[:, :-1]).sum()
        travel = (np.abs(lane[self.start] - lane[self.stop]) * self.weight).sum()
        steep = (np.maximum(0, np.abs(lane[self.start] - lane[self.stop]) / self.length - 1.2) ** 2).sum()
        # Between columns a line may bow out furthest.
        y = self.heights(lane, bow, _ALONG)
        outside = np.maximum(0, -0.5 - y).sum() + np.maximum(0, y - self.height + 0.5).sum()
        stacked = (lane[self.left] == lane[self.right]).sum()
        middle = np.abs(lane - (self.height - 1) / 2).sum()
        return float(
            60 * (near**2).sum()
            + 6 * close
            + 0.6 * crossings
            + 0.35 * travel
            + 0.5 * np.abs(bow).sum()
            + 0.8 * steep
            + 40 * outside
            + 500 * stacked
            + 0.08 * middle
        )


def place(nodes: Sequence[Node], links: Sequence[Link], lanes: int = 9, rounds: int = 6) -> Layout:
    """Find a placement; the same lines always give the same one.

    Args:
        nodes: The parts, from the input to the logits.
        links: The lines between them.
        lanes: Room across; more is taken where one column holds more parts.
        rounds: How often every part and every line is tried elsewhere.

    Returns:
        The placement.
    """
    at = columns(nodes)
    crowd = max(sum(1 for other in at.values() if other == column) for column in at.values())
    height = max(lanes, crowd + 2 - crowd % 2 + lanes % 2 - 1)
    board = _Board(nodes, links, at, height)
    lane, bow = _start(nodes, at, height), np.zeros(len(links))
    lane, bow = _improve(board, lane, bow, rounds)
    return Layout(at, dict(zip(nodes, lane.tolist(), strict=True)), tuple(bow.tolist()), max(at.values()), height)


def _start(nodes: Sequence[Node], at: dict[Node, float], height: int) -> np.ndarray:
    lane = np.full(len(nodes), float(height // 2))
    for column in set(at.values()):
        members = [i for i, node in enumerate(nodes) if at[node] == column]
        first = (height - len(members)) // 2
        for offset, i in enumerate(members):
            lane[i] = first + offset
    return lane


def _improve(board: _Board, lane: np.ndarray, bow: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    dice = random.Random(0)
    best = board.cost(lane, bow)
    fixed = {int(np.argmin(board.column)), int(np.argmax(board.column))}
    movable = [("lane", i) for i in range(len(lane)) if i not in fixed] + [("bow", i) for i in range(len(bow))]
    for _ in range(rounds):
        before = best
        dice.shuffle(movable)
        for what, i in movable:
            values = lane if what == "lane" else bow
            kept = values[i]
            for choice in range(board.height) if what == "lane" else _BOWS:
                values[i] = choice
                cost = board.cost(lane, bow)
                if cost < best - 1e-9:
                    best, kept = cost, float(choice)
            values[i] = kept
        if best == before:
            break
    return lane, bow
