"""The importance of every head, as a grid of colours, and of every MLP, as bars beside it."""

from dataclasses import dataclass
from typing import Literal

from interpose.report import words
from interpose.report.nodes import Node
from interpose.report.result import Result
from interpose.report.scales import Axis

Shape = Literal["wide", "tall"]
_GAP = 26.0  # pixels between the grid and the bars


@dataclass(frozen=True)
class Cell:
    """One head: its place (pixels), its colour's sign and strength (0 to 1), whether the circuit's drawing has it."""

    x: float
    y: float
    sign: str
    depth: float
    title: str
    drawn: bool


@dataclass(frozen=True)
class Bar:
    """One MLP: a rectangle in pixels."""

    x: float
    y: float
    width: float
    height: float
    sign: str
    title: str


@dataclass(frozen=True)
class Label:
    """A number at the grid's border."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Grid:
    """The figure in one shape; lengths are pixels.

    Attributes:
        cell: A cell's width and height.
        ring: How far inside a cell its ring lies.
        columns: How many cells stand side by side.
        zero: Where the bars start.
        bars_at: Where their name is written.
    """

    shape: Shape
    width: float
    height: float
    cell: tuple[float, float]
    ring: float
    left: float
    top: float
    right: float
    bottom: float
    columns: int
    cells: tuple[Cell, ...]
    bars: tuple[Bar, ...]
    zero: float
    bars_at: float
    layers: tuple[Label, ...]
    heads: tuple[Label, ...]


@dataclass(frozen=True)
class HeatFigure:
    """Both shapes, and the values at the ends of the two scales."""

    wide: Grid
    tall: Grid
    largest: float
    largest_mlp: float


def figure(result: Result, drawn: frozenset[str] = frozenset()) -> HeatFigure:
    """Draw the heads.

    Args:
        result: What was found.
        drawn: Names of the parts that the circuit's drawing shows; they are ringed.

    Returns:
        The figure.
    """
    largest = max(abs(value) for row in result.heads for value in row) or 1.0
    layers, heads = result.model.layers, result.model.heads
    wide = (min(44.0, max(7.0, 1010 / layers)), min(26.0, max(7.0, 300 / heads)))
    tall = (min(29.0, max(4.0, 256 / heads)), min(22.0, max(7.0, 700 / layers)))
    grids = [_grid(result, drawn, largest, "wide", wide), _grid(result, drawn, largest, "tall", tall)]
    return HeatFigure(grids[0], grids[1], largest, max(abs(value) for value in result.mlps) or 1.0)


def _grid(result: Result, drawn: frozenset[str], largest: float, shape: Shape, cell: tuple[float, float]) -> Grid:
    layers, heads = result.model.layers, result.model.heads
    columns, rows = (layers, heads) if shape == "wide" else (heads, layers)
    left, top = (44.0, 8.0) if shape == "wide" else (38.0, 32.0)
    right, bottom = left + columns * cell[0], top + rows * cell[1]
    depth = 62.0 if shape == "wide" else 46.0
    start = (bottom if shape == "wide" else right) + _GAP
    cells = []
    for layer, row in enumerate(result.heads):
        for head, value in enumerate(row):
            column, line = (layer, heads - 1 - head) if shape == "wide" else (head, layers - 1 - layer)
            node = Node("head", layer, head)
            title = f"head {node.label}: {words.score(value)}"
            sign, strength = "neg" if value < 0 else "pos", abs(value) / largest
            cells.append(Cell(left + column * cell[0], top + line * cell[1], sign, strength, title, node.name in drawn))
    bars, zero = _bars(result, shape, (start, start + depth), (left, top), cell)
    width, height = (right + 8, start + depth + 34) if shape == "wide" else (start + depth + 4, bottom + 8)
    layer_labels, head_labels = _labels(result, shape, (left, top), cell)
    return Grid(
        shape=shape,
        width=width,
        height=height,
        cell=cell,
        ring=1.0 if min(cell) >= 12 else -1.0,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        columns=columns,
        cells=tuple(cells),
        bars=bars,
        zero=zero,
        bars_at=start,
        layers=layer_labels,
        heads=head_labels,
    )


def _bars(
    result: Result, shape: Shape, room: tuple[float, float], corner: tuple[float, float], cell: tuple[float, float]
) -> tuple[tuple[Bar, ...], float]:
    low, high = min(0.0, *result.mlps), max(0.0, *result.mlps)
    high = high if high > low else low + 1.0
    near, far = room[::-1] if shape == "wide" else room
    axis = Axis(low, high, near, far)
    bars = []
    for layer, value in enumerate(result.mlps):
        begin, end = sorted((axis(0.0), axis(value)))
        line = layer if shape == "wide" else len(result.mlps) - 1 - layer
        thick = cell[0] if shape == "wide" else cell[1]
        side = corner[0] if shape == "wide" else corner[1]
        at, wide = side + line * thick + 0.18 * thick, 0.64 * thick
        box = (at, begin, wide, end - begin) if shape == "wide" else (begin, at, end - begin, wide)
        bars.append(Bar(*box, "neg" if value < 0 else "pos", f"MLP m{layer}: {words.score(value)}"))
    return tuple(bars), axis(0.0)


def _labels(
    result: Result, shape: Shape, corner: tuple[float, float], cell: tuple[float, float]
) -> tuple[tuple[Label, ...], tuple[Label, ...]]:
    layers, heads = result.model.layers, result.model.heads
    left, top = corner
    across, down = cell
    if shape == "wide":
        bottom = top + heads * down
        along = [Label(left + (i + 0.5) * across, bottom + 16, str(i)) for i in _sparse(layers, across, 20.0)]
        other = [Label(left - 8, top + (heads - 0.5 - i) * down + 4, str(i)) for i in _sparse(heads, down, 13.0)]
    else:
        along = [Label(left - 6, top + (layers - 0.5 - i) * down + 4, str(i)) for i in _sparse(layers, down, 13.0)]
        other = [Label(left + (i + 0.5) * across, top - 6, str(i)) for i in _sparse(heads, across, 18.0)]
    return tuple(along), tuple(other)


def _sparse(total: int, pitch: float, needed: float) -> range:
    """Which numbers to write so that they do not touch."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if step * pitch >= needed)
    return range(0, total, step)
