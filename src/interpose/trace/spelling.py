"""How a token is written: what its text is, and how it is shown so that blanks and line ends can be seen."""

from collections.abc import Sequence
from typing import Any
from unicodedata import combining, east_asian_width

BLANK, NEWLINE, TAB = "\N{MIDDLE DOT}", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}", "\N{RIGHTWARDS ARROW TO BAR}"
OPEN_BOX = "\N{OPEN BOX}"
_PIECE = "\N{LOWER ONE EIGHTH BLOCK}"


def spelled(tokenizer: Any, token: int) -> str:
    """The text of one token, with the blank in front where it has one.

    Args:
        tokenizer: a tokenizer of the transformers library; one that cannot decode gives the number as text.
        token: its id.

    Returns:
        the text; a part of a character is shown as the replacement character.
    """
    decode = getattr(tokenizer, "decode", None)
    if decode is None:
        return str(token)
    text = decode([token], clean_up_tokenization_spaces=False)
    pieces = getattr(tokenizer, "convert_ids_to_tokens", None)
    piece = pieces(token) if pieces is not None else None
    # Some decoders drop the blank at the start of what they take for a whole text.
    if isinstance(piece, str) and piece.startswith(_PIECE) and not text.startswith(" "):
        return f" {text}"
    return text


def visible(text: str) -> str:
    """A text on one line: blanks as dots, line ends and tabs as arrows, other characters without a shape as escapes.

    A text of blanks alone is shown as open boxes, which nobody takes for full stops.
    """
    if text and not text.strip(" "):
        return OPEN_BOX * len(text)
    signs = {" ": BLANK, "\n": NEWLINE, "\t": TAB}
    shown = "".join(signs.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode()) for c in text)
    return shown or "''"


def columns(rows: Sequence[Sequence[str]], sides: str) -> str:
    """Rows of cells as aligned lines.

    Args:
        rows: the cells.
        sides: for each column, `<` for left or `>` for right.
    """
    widths = [max(width(row[i]) for row in rows) for i in range(len(sides))]
    lines = ("  ".join(map(padded, row, widths, sides)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def padded(text: str, to: int, side: str = "<") -> str:
    """A text with blanks up to a width, on the right (`<`) or on the left (`>`)."""
    blanks = " " * (to - width(text))
    return blanks + text if side == ">" else text + blanks


def width(text: str) -> int:
    """How many columns of a terminal a text takes: characters of East Asian scripts take two."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
