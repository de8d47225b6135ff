"""The circuit as a drawing: its strongest parts and lines, placed on paper."""

from dataclasses import dataclass
from typing import Literal

from interpose.report import words
from interpose.report.layout import Layout, place
from interpose.report.nodes import Node
from interpose.report.result import Result
from interpose.report.selection import Drawn, Link, select

Shape = Literal["wide", "tall"]
_PILL = {"head": 36.0, "mlp": 32.0, "input": 44.0, "logits": 46.0}
_PILL_HEIGHT = 22.0
_THINNEST, _THICKEST = 1.0, 8.5


@dataclass(frozen=True)
class Pill:
    """One part: a box with its name.

    Attributes:
        key: Distinguishes it from the others.
        kind: What sort of part.
        label: The text in it.
        title: What it says when pointed at.
        x: Centre, pixels.
        y: Centre, pixels.
        width: Pixels.
        height: Pixels.
        sign: ``pos`` or ``neg``: the colour.
        depth: How strong the colour is, 0 to 1.
    """

    key: str
    kind: str
    label: str
    title: str
    x: float
    y: float
    width: float
    height: float
    sign: str
    depth: float


@dataclass(frozen=True)
class Line:
    """One line: `path` is SVG path data; `source` and `destination` are keys of pills; `width` is in pixels."""

    source: str
    destination: str
    title: str
    path: str
    width: float
    sign: str


@dataclass(frozen=True)
class Band:
    """The stripe of one layer along the way: from `start` to `stop`, pixels; every second one is shaded."""

    label: str
    start: float
    stop: float
    shaded: bool


@dataclass(frozen=True)
class Sample:
    """One line of the legend."""

    label: str
    width: float
    sign: str


@dataclass(frozen=True)
class Drawing:
    """A circuit on paper; `width` and `height` are in pixels."""

    shape: Shape
    width: float
    height: float
    pills: tuple[Pill, ...]
    lines: tuple[Line, ...]
    bands: tuple[Band, ...]


@dataclass(frozen=True)
class CircuitFigure:
    """Both drawings of a circuit, with what they share."""

    drawn: Drawn
    wide: Drawing
    tall: Drawing
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class _Paper:
    """Turns columns and lanes into pixels."""

    shape: Shape
    layout: Layout
    pitch: float
    lane: float
    lead: float
    side: float

    @property
    def size(self) -> tuple[float, float]:
        along = 2 * self.lead + self.layout.width * self.pitch
        across = 2 * self.side + (self.layout.height - 1) * self.lane
        return (along, across + 22) if self.shape == "wide" else (across + 22, along)

    def along(self, column: float) -> float:
        forward = self.lead + column * self.pitch
        return forward if self.shape == "wide" else self.size[1] - forward

    def across(self, lane: float) -> float:
        return self.side + lane * self.lane + (0 if self.shape == "wide" else 22)

    def point(self, column: float, lane: float) -> tuple[float, float]:
        along, across = self.along(column), self.across(lane)
        return (along, across) if self.shape == "wide" else (across, along)


def figure(result: Result, most: int = 52) -> CircuitFigure | None:
    """Draw the chosen circuit.

    Args:
        result: What was found.
        most: How many lines at most.

    Returns:
        The figure; None where no path leads from the input to the logits.
    """
    drawn = select(result.chosen.edges, most)
    if not drawn.links:
        return None
    layout = place(drawn.nodes, drawn.links, 9 if len(drawn.nodes) > 8 else 5)
    pitch = min(120.0, max(42.0, 1010 / layout.width))
    wide = _Paper("wide", layout, pitch, 40.0, 38.0, 30.0)
    tall = _Paper("tall", layout, 36.0, 318 / (layout.height - 1) if layout.height <= 9 else 39.75, 26.0, 22.0)
    strongest = max(link.strength for link in drawn.links)
    samples = tuple(
        Sample(words.score(share * strongest if sign == "pos" else -share * strongest), _thickness(share), sign)
        for share, sign in ((1.0, "pos"), (0.1, "pos"), (0.1, "neg"))
    )
    return CircuitFigure(drawn, _draw(wide, drawn, result), _draw(tall, drawn, result), samples)


def _draw(paper: _Paper, drawn: Drawn, result: Result) -> Drawing:
    width, height = paper.size
    scores = {node.name: node.score for node in result.chosen.nodes}
    largest = max((abs(scores.get(n.name, 0.0)) for n in drawn.nodes if n.kind == "head"), default=0.0) or 1.0
    pills = tuple(_pill(paper, node, scores.get(node.name, 0.0), largest) for node in drawn.nodes)
    strongest = max(link.strength for link in drawn.links) or 1.0
    paired = sorted(zip(drawn.links, paper.layout.bows, strict=True), key=lambda pair: pair[0].strength)
    lines = tuple(_line(paper, link, bow, strongest) for link, bow in paired)
    return Drawing(paper.shape, width, height, pills, lines, _bands(paper))


def _pill(paper: _Paper, node: Node, score: float, largest: float) -> Pill:
    x, y = paper.point(paper.layout.columns[node], paper.layout.lanes[node])
    kind = {"head": "Head", "mlp": "MLP"}.get(node.kind, "")
    title = f"{kind} {node.label}".strip() + f": {words.score(score)} in this circuit"
    depth = min(1.0, abs(score) / largest) ** 0.5 if node.kind in ("head", "mlp") else 0.0
    sign = "neg" if score < 0 else "pos"
    return Pill(node.name, node.kind, node.label, title, x, y, _PILL[node.kind], _PILL_HEIGHT, sign, depth)


def _thickness(share: float) -> float:
    return max(_THINNEST, _THICKEST * share**0.5)


def _line(paper: _Paper, link: Link, bow: float, strongest: float) -> Line:
    layout = paper.layout
    ends = [paper.point(layout.columns[node], layout.lanes[node]) for node in (link.source, link.destination)]
    reach = [
        _PILL[node.kind] / 2 if paper.shape == "wide" else _PILL_HEIGHT / 2 for node in (link.source, link.destination)
    ]
    along = 0 if paper.shape == "wide" else 1
    forward = 1 if paper.shape == "wide" else -1
    start, stop = ends[0][along] + forward * reach[0], ends[1][along] - forward * reach[1]
    bend = bow * paper.lane
    points = [
        (start, ends[0][1 - along]),
        (start + (stop - start) / 3, ends[0][1 - along] + bend),
        (start + (stop - start) * 2 / 3, ends[1][1 - along] + bend),
        (stop, ends[1][1 - along]),
    ]
    pairs = [f"{x:.1f},{y:.1f}" for x, y in (point if along == 0 else point[::-1] for point in points)]
    parts = "; ".join(f"{entry} {words.score(score)}".strip() for entry, score in link.scores)
    return Line(
        source=link.source.name,
        destination=link.destination.name,
        title=f"{link.source.label} → {link.destination.label}: {parts}",
        path=f"M{pairs[0]}C{' '.join(pairs[1:])}",
        width=_thickness(link.strength / strongest),
        sign="neg" if link.total < 0 else "pos",
    )


def _bands(paper: _Paper) -> tuple[Band, ...]:
    spans: dict[int, list[float]] = {}
    for node, column in paper.layout.columns.items():
        if node.layer >= 0:
            spans.setdefault(node.layer, []).append(column)
    layers = sorted(spans)
    edges = []
    for layer in layers:
        edges.append((paper.along(min(spans[layer]) - 0.5), paper.along(max(spans[layer]) + 0.5)))
    return tuple(
        Band(str(layer), min(ends), max(ends), i % 2 == 0)
        for i, (layer, ends) in enumerate(zip(layers, edges, strict=True))
    )
