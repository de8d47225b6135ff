"""Which edges of a circuit are drawn.

A circuit has thousands of edges and a legible picture some fifty. They are taken strongest first, each with the path of
strongest edges that joins it to the input and to the logits, so that whatever is drawn carries something somewhere.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from interpose.report.nodes import Node, parse
from interpose.report.result import EdgeScore


@dataclass(frozen=True)
class Link:
    """All edges between two parts, drawn as one line: a head may be reached by q, k and v at once.

    Attributes:
        source: Where they start.
        destination: Where they end.
        scores: The score of each, with the input it enters by (empty where there is only one).
    """

    source: Node
    destination: Node
    scores: tuple[tuple[str, float], ...]

    @property
    def total(self) -> float:
        """The sum of the scores: its sign is the line's colour."""
        return math.fsum(score for _, score in self.scores)

    @property
    def strength(self) -> float:
        """The sum of the absolute scores: the line's width."""
        return math.fsum(abs(score) for _, score in self.scores)


@dataclass(frozen=True)
class Drawn:
    """What is drawn of a circuit.

    Attributes:
        links: The lines.
        joining: How many of them are there only to join stronger ones to the input or the logits.
    """

    links: tuple[Link, ...]
    joining: int

    @property
    def edges(self) -> int:
        """How many edges of the circuit the lines stand for."""
        return sum(len(link.scores) for link in self.links)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The parts at their ends, from the input to the logits."""
        ends = {node for link in self.links for node in (link.source, link.destination)}
        return tuple(sorted(ends, key=lambda node: (*node.depth, node.head)))


def links(edges: Iterable[EdgeScore]) -> tuple[Link, ...]:
    """Gather edges between the same two parts, strongest first."""
    gathered: dict[tuple[Node, Node], list[tuple[str, float]]] = {}
    for edge in edges:
        destination, entry = parse(edge.destination)
        gathered.setdefault((parse(edge.source)[0], destination), []).append((entry, edge.score))
    made = [Link(source, destination, tuple(sorted(scores))) for (source, destination), scores in gathered.items()]
    return tuple(sorted(made, key=lambda link: (-link.strength, link.source.name, link.destination.name)))


def select(edges: Iterable[EdgeScore], most: int = 52) -> Drawn:
    """Choose the lines to draw.

    Args:
        edges: The circuit's edges.
        most: How many lines at most.

    Returns:
        The lines; none where no path leads from the input to the logits.
    """
    ranked = links(edges)
    before = _widest(ranked)
    after = _widest([Link(link.destination, link.source, link.scores) for link in ranked], backwards=True)
    kept: dict[tuple[Node, Node], Link] = {}
    by_ends = {(link.source, link.destination): link for link in ranked}
    rank = 0
    for rank, link in enumerate(ranked, start=1):
        if link.source not in before or link.destination not in after:
            continue
        # What is drawn already is joined already, so a path ends where it meets it.
        met = {node for ends in kept for node in ends}
        path = [
            *_walk(before, link.source, met),
            (link.source, link.destination),
            *(step[::-1] for step in _walk(after, link.destination, met)),
        ]
        new = {ends: by_ends[ends] for ends in path if ends not in kept}
        if len(kept) + len(new) > most:
            rank -= 1
            break
        kept |= new
    strongest = {(link.source, link.destination) for link in ranked[:rank]}
    return Drawn(tuple(link for ends, link in by_ends.items() if ends in kept), len(kept.keys() - strongest))


def _widest(ranked: Iterable[Link], backwards: bool = False) -> dict[Node, Node | None]:
    """For each part that can be reached, the part before it on the path whose weakest line is strongest."""
    start = Node("logits" if backwards else "input")
    width: dict[Node, float] = {start: float("inf")}
    previous: dict[Node, Node | None] = {start: None}
    # Lines are taken in the order of where they start, so a part's own path is settled before it is used.
    for link in sorted(ranked, key=lambda link: link.source.depth, reverse=backwards):
        reach = min(width.get(link.source, 0.0), link.strength)
        if link.source in width and reach > width.get(link.destination, -1.0):
            width[link.destination] = reach
            previous[link.destination] = link.source
    return previous


def _walk(previous: dict[Node, Node | None], node: Node, met: set[Node]) -> list[tuple[Node, Node]]:
    """The lines from a part back to where the search began, or to a part that was met."""
    steps = []
    while node not in met and (earlier := previous[node]) is not None:
        steps.append((earlier, node))
        node = earlier
    return steps
