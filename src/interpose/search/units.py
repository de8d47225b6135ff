"""Names of units: whether two lists speak of the same ones, and how a list is named in a message."""

from collections.abc import Sequence

from interpose.errors import SearchError
from interpose.models.stream import EdgeNames, StreamGraph


def same_units(first: Sequence[str], second: Sequence[str]) -> None:
    """Check that two sequences name the same units in the same order.

    Raises:
        SearchError: they do not; the message names the first difference.
    """
    if isinstance(first, EdgeNames) and isinstance(second, EdgeNames):
        if first.graph == second.graph:
            return
        difference = f"{first.graph} against {second.graph}"
    elif len(first) != len(second):
        difference = f"{sketch(first)} against {sketch(second)}"
    else:
        pairs = enumerate(zip(first, second, strict=True))
        found = next(((i, a, b) for i, (a, b) in pairs if a != b), None)
        if found is None:
            return
        difference = f"unit {found[0]} is {found[1]} in one and {found[2]} in the other"
    raise SearchError(f"These are not about the same units: {difference}. Score both with the same mediator and model.")


def graph_of(units: Sequence[str]) -> StreamGraph:
    """The graph whose edges the units are. Raises SearchError where they are not edges."""
    if not isinstance(units, EdgeNames):
        raise SearchError(f"Only edges have a graph; these units are {sketch(units)}. Search with Edges() for one.")
    return units.graph


def sketch(units: Sequence[str]) -> str:
    """How many units there are, and the first of their names."""
    if isinstance(units, EdgeNames):
        return f"{len(units):,} edges"
    shown = ", ".join(units[i] for i in range(min(3, len(units))))
    return f"{len(units):,} units ({shown}{', ...' if len(units) > 3 else ''})"
