"""Faithfulness against size, for the circuit and the random ones, as a plot with bands."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from interpose.report import words
from interpose.report.evidence import Estimate, Size
from interpose.report.result import Result
from interpose.report.scales import Axis, room, ticks

Shape = Literal["wide", "tall"]
_SEEN = (-0.6, 2.4)  # intervals may reach beyond this without stretching the plot; means may not


@dataclass(frozen=True)
class Dot:
    """One measurement: where it is, and what it says when pointed at."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Series:
    """One ranking: `style` names its colour and marks, `line` and `band` are SVG path data."""

    style: str
    name: str
    line: str
    band: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: pixels, its text, a second line of text, and whether the circuit beats the controls there."""

    at: float
    text: str
    below: str = ""
    above: bool = False
    required: bool = False


@dataclass(frozen=True)
class Plot:
    """The plot in one shape; all lengths are pixels. `clipped` says that some interval leaves the plot."""

    shape: Shape
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    series: tuple[Series, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    zero: float
    one: float
    span: tuple[float, float]
    clipped: bool


@dataclass(frozen=True)
class CurveFigure:
    """Both shapes, and the names for the legend as (style, name)."""

    wide: Plot
    tall: Plot
    names: tuple[tuple[str, str], ...]


def figure(result: Result) -> CurveFigure:
    """Draw the curve."""
    wide, tall = _plot(result, "wide"), _plot(result, "tall")
    return CurveFigure(wide, tall, tuple((series.style, series.name) for series in reversed(wide.series)))


def _plot(result: Result, shape: Shape) -> Plot:
    width, height, left, right = (1080.0, 440.0, 56.0, 1060.0) if shape == "wide" else (360.0, 350.0, 34.0, 352.0)
    top, bottom = 34.0, height - (74 if shape == "wide" else 58)
    tracks = _tracks(result)
    means = [of(size).mean for _, _, of in tracks for size in result.curve]
    bounds = [end for _, _, of in tracks for size in result.curve for end in (of(size).low, of(size).high)]
    low, high = room([*means, *(min(max(end, _SEEN[0]), _SEEN[1]) for end in bounds)], 0.0, 1.0)
    x = Axis(result.curve[0].fraction, result.curve[-1].fraction, left + 14, right - 14, log=True)
    y = Axis(low, high, bottom, top)
    series = tuple(_series(result, style, name, of, x, y) for style, name, of in tracks)
    required = [x(fraction) for fraction in result.verdict.required]
    return Plot(
        shape=shape,
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        series=series,
        across=tuple(_size_tick(result, size, x) for size in result.curve),
        up=tuple(
            Tick(y(value), words.number(value, 2).removesuffix("0").removesuffix(".0")) for value in ticks(low, high)
        ),
        zero=y(0.0),
        one=y(1.0),
        span=(max(left, min(required) - 16), min(right, max(required) + 16)),
        clipped=min(bounds) < low or max(bounds) > high,
    )


def _tracks(result: Result) -> list[tuple[str, str, Callable[[Size], Estimate]]]:
    """What is plotted, from the back to the front: style, name, and how to look it up."""

    def control(name: str) -> Callable[[Size], Estimate]:
        return lambda size: size.controls[name]

    random = [(f"control-{i % 3}", f"random, {name}", control(name)) for i, name in enumerate(result.controls)]
    return [
        *reversed(random),
        ("absolute", "circuit by absolute score", lambda size: size.absolute),
        ("signed", "circuit by signed score", lambda size: size.signed),
    ]


def _series(result: Result, style: str, name: str, of: Callable[[Size], Estimate], x: Axis, y: Axis) -> Series:
    middle = [(x(size.fraction), y(of(size).mean)) for size in result.curve]
    upper = [(x(size.fraction), y(of(size).high)) for size in result.curve]
    lower = [(x(size.fraction), y(of(size).low)) for size in reversed(result.curve)]
    dots = [
        Dot(*at, f"{name}, {words.percent(size.fraction)}: {words.interval(of(size))}")
        for at, size in zip(middle, result.curve, strict=True)
    ]
    return Series(style, name, _path(middle), _path([*upper, *lower]) + "Z", tuple(dots))


def _path(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _size_tick(result: Result, size: Size, x: Axis) -> Tick:
    number = f"{100 * size.fraction:.3g}"
    required = size.fraction in result.verdict.required
    return Tick(x(size.fraction), number, words.count(size.edges), size.above_controls, required)
