"""How a report writes numbers and lists."""

from collections.abc import Iterable, Sequence

from interpose.report.evidence import Estimate

SPACE = "\N{NO-BREAK SPACE}"


def _minus(text: str) -> str:
    """Write a true minus sign, and no sign before a zero."""
    digits = text.strip("+-")
    bare = digits if float(digits) == 0 else text
    return bare.replace("-", "\N{MINUS SIGN}")


def number(value: float, digits: int = 2) -> str:
    """A measurement: ``0.91``."""
    return _minus(f"{value:.{digits}f}")


def score(value: float) -> str:
    """A score, always with its sign: ``+0.0312``; in powers of ten where that would show no digit."""
    return _minus(f"{value:+.4f}" if abs(value) >= 0.00095 or value == 0 else f"{value:+.1e}")


def brief(value: float) -> str:
    """A score for a sentence: ``+0.31``, ``-0.042``: two digits that count, or three above one."""
    size = abs(value)
    return score(value) if size < 0.0095 else _minus(f"{value:+.{2 if size >= 0.095 else 3}f}")


def interval(value: Estimate, digits: int = 2) -> str:
    """A mean with its interval: ``0.91 [0.85, 0.97]``."""
    return f"{number(value.mean, digits)} {bounds(value, digits)}"


def bounds(value: Estimate, digits: int = 2) -> str:
    """The interval alone: ``[0.85, 0.97]``."""
    return f"[{number(value.low, digits)},{SPACE}{number(value.high, digits)}]"


def percent(fraction: float) -> str:
    """A part of the whole: ``5 %``."""
    return f"{100 * fraction:.3g}{SPACE}%"


def count(value: int) -> str:
    """A number of things: ``123,211``."""
    return f"{value:,}"


def listed(items: Sequence[str]) -> str:
    """Words in a row: ``a, b and c``."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def percents(fractions: Iterable[float]) -> str:
    """Several parts of the whole: ``2, 5 and 10 %``."""
    return listed([f"{100 * fraction:.3g}" for fraction in fractions]) + f"{SPACE}%"


def duration(seconds: float) -> str:
    """A time: ``4 min 41 s``."""
    if seconds < 9.95:
        return f"{seconds:.1f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}{SPACE}min {rest}{SPACE}s" if minutes else f"{rest}{SPACE}s"


def memory(size: int) -> str:
    """A size of memory: ``2.31 GB`` (powers of ten)."""
    return f"{size / 1e9:.2f}{SPACE}GB" if size >= 1e9 else f"{size / 1e6:.0f}{SPACE}MB"
