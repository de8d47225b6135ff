"""The three figures of a report, as SVG that follows the page's colours.

Each is drawn twice: ``wide`` for a desk and paper, ``tall`` for a phone; the style sheet shows one of them.
Coordinates are computed in `circuit`, `heat` and `curve`, and the templates only write them down.
"""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from interpose.report import circuit, curve, heat, words
from interpose.report.result import Result


@cache
def environment() -> Environment:
    """The templates; every value is escaped, and a name that is not given is an error."""
    made = Environment(
        loader=PackageLoader("interpose.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["px"] = lambda value: f"{value:.1f}".removesuffix(".0")
    made.globals["words"] = words
    return made


def draw(result: Result) -> dict[str, object]:
    """Compute all figures of a result.

    Args:
        result: What was found.

    Returns:
        What the page's template draws: ``circuit`` (None where nothing connects), ``heat`` and ``curve``.
    """
    drawing = circuit.figure(result)
    drawn = frozenset(node.name for node in drawing.drawn.nodes) if drawing else frozenset()
    return {"circuit": drawing, "heat": heat.figure(result, drawn), "curve": curve.figure(result)}
