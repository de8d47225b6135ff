"""What notebooks show: small pieces of HTML. All text is escaped here; prompts and names come from outside."""

import html
from collections.abc import Collection, Sequence

MONO = "font-family:ui-monospace,Menlo,Consolas,monospace"
MARK = "background:rgba(230,120,30,.28)"


def text(value: object) -> str:
    """A value as text that HTML shows as it is."""
    return html.escape(str(value), quote=True)


def lines(value: object) -> str:
    """Lines of text, as they are."""
    return f'<pre style="{MONO};line-height:1.35;margin:4px 0">{text(value)}</pre>'


def title(value: object) -> str:
    """A line above a table or a picture."""
    return f'<div style="font-weight:600;margin:4px 0">{text(value)}</div>'


def table(
    head: Sequence[object],
    rows: Sequence[Sequence[object]],
    *,
    left: Collection[int] = (),
    marked: Collection[tuple[int, int]] = (),
) -> str:
    """A table.

    Args:
        head: the columns' names; none for a table without.
        rows: the cells, row by row.
        left: the columns that are aligned on the left; numbers stay on the right.
        marked: the (row, column) of cells that stand out.
    """
    sides = ["left" if column in left else "right" for column in range(max(map(len, [head, *rows]), default=0))]
    top = "".join(f'<th align="{side}">{text(name)}</th>' for name, side in zip(head, sides, strict=False))
    body = []
    for number, row in enumerate(rows):
        cells = []
        for column, (value, side) in enumerate(zip(row, sides, strict=False)):
            style = f' style="{MARK}"' if (number, column) in marked else ""
            cells.append(f'<td align="{side}"{style}>{text(value)}</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    header = f"<thead><tr>{top}</tr></thead>" if head else ""
    whole = f'<table style="{MONO};white-space:pre" cellpadding="4">{header}<tbody>{"".join(body)}</tbody></table>'
    return f'<div style="overflow-x:auto">{whole}</div>'


def bars(values: Sequence[tuple[str, float]], width: int = 260) -> str:
    """A small picture: one horizontal bar a value, to the right where positive, to the left where negative.

    Args:
        values: names and numbers.
        width: pixels that the bars may take, beside their names.
    """
    largest = max((abs(value) for _, value in values), default=0.0) or 1.0
    left = 7.0 * max((len(name) for name, _ in values), default=0) + 12
    zero = left + (width / 2 if any(value < 0 for _, value in values) else 0.0)
    room = left + width - zero
    drawn = []
    for number, (name, value) in enumerate(values):
        size, top = room * abs(value) / largest, 15 * number
        start, colour = (zero - size, "#c2500a") if value < 0 else (zero, "#1d5fbf")
        drawn.append(
            f"<g><title>{text(f'{name} {value:+.4g}')}</title>"
            f'<text x="{left - 8:.0f}" y="{top + 11}" text-anchor="end" fill="currentColor">{text(name)}</text>'
            f'<rect x="{start:.1f}" y="{top + 2}" width="{max(size, 0.5):.1f}" height="11" fill="{colour}"/></g>'
        )
    size = f'width="{left + width:.0f}" height="{15 * len(values)}"'
    style = f"{MONO};font-size:11px"
    return f'<svg {size} style="{style}" role="img" xmlns="http://www.w3.org/2000/svg">{"".join(drawn)}</svg>'
