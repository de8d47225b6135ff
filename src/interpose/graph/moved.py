"""The same graph at another place: one recording serves a whole sweep."""

from dataclasses import replace
from typing import Any

from interpose.graph.arguments import Slice
from interpose.graph.nodes import Graph, Node, Op, Read, Write, references
from interpose.graph.sites import Site


def moved(graph: Graph, of: tuple[Site, Any], to: tuple[Site, Any]) -> Graph:
    """A graph in which what is written to one part of a site is written to another part of another site.

    Args:
        graph: the graph.
        of: a site and an index of it, as in `site[:, -1]`.
        to: what stands in their place; both sites have the same axes, and both indices take as many of them.

    Returns:
        a graph with the writes of the first site at the second, and with all that their values are made of there too;
        what else reads the site, or uses the index, is as it was.
    """
    was, now = _as_recorded(of[1]), _as_recorded(to[1])
    moving, nodes = set[int](), list(graph.nodes)
    for index in reversed(range(len(nodes))):
        node = nodes[index]
        if index in moving or (isinstance(node, Write) and node.site == of[0]):
            moving |= {index, *(ref.index for ref in references(node))}
            nodes[index] = _moved(node, of[0], to[0], was, now)
    return Graph.recorded(graph.worlds, tuple(nodes))


def _moved(node: Node, site: Site, other: Site, was: Any, now: Any) -> Node:
    if isinstance(node, Read | Write):
        return replace(node, site=other) if node.site == site else node
    if isinstance(node, Op) and node.name in ("getitem", "setitem") and node.args[1] == was:
        return replace(node, args=(node.args[0], now, *node.args[2:]))
    return node


def _as_recorded(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple([_as_recorded(part) for part in index])
    return Slice(index.start, index.stop, index.step) if isinstance(index, slice) else index
