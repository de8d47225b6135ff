"""What the pictures of one prompt share: colours, lettering, and how they are written to a file.

matplotlib draws, without pyplot: nothing outside a figure is changed for good. Text is never read as mathematics, and a
character that the font lacks is shown as an escape.
"""

import base64
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import TextToPath

from interpose.errors import InterposeError
from interpose.graph import markup
from interpose.trace.spelling import visible

INK, SOFT, HAIR = "#1b1f24", "#565d66", "#dfe2e6"
BLUES = LinearSegmentedColormap.from_list("blues", ["#f6f8fb", "#c3d7f2", "#6d9fe0", "#1d5fbf", "#123f80"])
_FAMILY = "DejaVu Sans"  # it comes with matplotlib, so pictures look alike everywhere
_LETTERING: dict[Any, Any] = {
    "font.family": _FAMILY,
    "font.size": 8.0,
    "text.parse_math": False,
    "text.usetex": False,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": HAIR,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "interpose",
    "svg.fonttype": "path",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
</head>
<body style="margin:24px;font-family:system-ui,sans-serif;color:#1b1f24;background:#fff">
{body}
</body>
</html>
"""


@contextmanager
def lettering() -> Iterator[None]:
    """The settings under which a figure is made and written."""
    with matplotlib.rc_context(_LETTERING):
        yield


def drawable(text: str) -> str:
    """A text with blanks and line ends made visible, and escapes for characters that the font does not have."""
    known = _glyphs()
    return "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in visible(text))


def sentence(text: str) -> str:
    """The same for a whole text, whose blanks stay blanks."""
    return " ".join(drawable(part) if part else "" for part in text.split(" "))


def fitted(text: str, room: float, size: float, smallest: float = 5.0) -> tuple[str, float]:
    """A text and the size at which it fits: smaller if that is enough, else cut at its end.

    Args:
        text: what is written.
        room: points that there are.
        size: the size wanted, in points.
        smallest: the smallest size that can be read.
    """
    wide = _width(text, size)
    if wide <= room:
        return text, size
    if wide * smallest / size <= room:
        return text, size * room / wide
    kept = max((n for n in range(len(text)) if _width(f"{text[:n]}…", smallest) <= room), default=0)
    return f"{text[:kept]}…", smallest


def heading(figure: Figure, left: float, title: str, notes: list[str]) -> None:
    """A title and the lines below it, at the figure's upper edge.

    Args:
        figure: the figure.
        left: where they begin, in inches.
        title: what the picture is.
        notes: what else must be said.
    """
    width, height = figure.get_size_inches()
    room = 72 * (width - left - 0.2)
    at = height - 0.28
    text, size = fitted(title, room, 11.5, 8.0)
    figure.text(left / width, at / height, text, size=size, weight="bold", color=INK)
    for note in notes:
        at -= 0.19
        text, size = fitted(note, room, 8.0, 6.5)
        figure.text(left / width, at / height, text, size=size, color=SOFT)


def part(axes: Any, columns: int, rows: int) -> None:
    """Take the frame and the tick marks away, and put white lines between cells."""
    axes.set_xticks([i - 0.5 for i in range(columns + 1)], minor=True)
    axes.set_yticks([i - 0.5 for i in range(rows + 1)], minor=True)
    axes.grid(which="minor", color="white", linewidth=0.9)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def scale(figure: Figure, drawn: Any, place: tuple[float, float, float], label: str, ticks: Sequence[float]) -> None:
    """The scale of colours.

    Args:
        figure: the figure.
        drawn: what is coloured by it.
        place: left, bottom and height, in inches.
        label: what the colours say.
        ticks: the numbers beside it.
    """
    wide, high = figure.get_size_inches()
    left, low, size = place
    axes = figure.add_axes((left / wide, low / high, 0.12 / wide, size / high))
    figure.colorbar(drawn, cax=axes, label=label, ticks=ticks, format="{x:g}")
    axes.tick_params(which="both", length=0, labelsize=7)
    axes.spines[:].set_visible(False)


def picture(figure: Figure, kind: str, dots: int = 200) -> bytes:
    """A figure as the content of a file.

    Args:
        figure: the figure.
        kind: `png` or `svg`.
        dots: pixels an inch, for PNG.
    """
    drawn = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    with lettering():
        figure.savefig(drawn, format=kind, dpi=dots, facecolor="white", metadata=metadata)
    return drawn.getvalue()


def image(figure: Figure, described: str) -> str:
    """A figure as a piece of HTML."""
    data = base64.b64encode(picture(figure, "png", 110)).decode()
    width = figure.get_size_inches()[0]
    source = f"data:image/png;base64,{data}"
    return f'<img src="{source}" alt="{markup.text(described)}" style="width:{96 * width:.0f}px;max-width:100%"/>'


def save(path: Path | str, title: str, html: Callable[[], str], draw: Callable[[], Figure]) -> Path:
    """Write a picture; the file appears whole or not at all.

    Args:
        path: where to; its ending says as what: .html, .png or .svg.
        title: the page's title.
        html: makes the page's content.
        draw: makes the figure.

    Returns:
        the path.

    Raises:
        InterposeError: the ending is another one, or the folder does not exist.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("html", "png", "svg"):
        raise InterposeError(f"A picture cannot be written to {path.name}: name it .html, .png or .svg.")
    if not path.parent.is_dir():
        raise InterposeError(f"There is no folder {path.parent} to write {path.name} into. Make it first.")
    data = _page(title, html()) if kind == "html" else picture(draw(), kind)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _page(title: str, body: str) -> bytes:
    return _PAGE.format(title=markup.text(title), body=body).encode()


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=_FAMILY))).get_charmap())


@cache
def _width(text: str, size: float) -> float:
    return TextToPath().get_text_width_height_descent(text, FontProperties(family=_FAMILY, size=size), ismath=False)[0]
