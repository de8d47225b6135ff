"""The result of `speed.py` as text."""

from typing import Any


def shown(measured: dict[str, Any]) -> str:
    """The table: a line a row, and under it everyone it is compared with, and what explains an aim that is missed."""
    rate = measured["rates"]["best"]
    lines = [
        f"\n{measured['model']}, {measured['dtype']}, {measured['machine']}, {measured['threads']} threads",
        f"matrix products of one layer: at best {rate / 1e9:.0f} GFLOP/s; all of this took {measured['seconds']:.0f} s",
    ]
    for row in measured["rows"]:
        lines += ["", *_row(row)]
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> list[str]:
    lines = [f"{row['work']}, against {row['against']}"]
    if "absent" in row or "wrong" in row:
        return [*lines, f"  {row.get('absent') or 'WRONG: ' + row['wrong']}"]
    ours = row["ours"]
    limit = f"   {_limit(row['limit'])}" if "limit" in row else ""
    lines.append(f"  {'interpose':28} {_seconds(ours['seconds']):>10}{limit}")
    lines += [f"  {row['note']}"] if "note" in row else []
    for other in row["others"]:
        lines.append(f"  {other['name']:28} {_other(other)}")
    if "holds" in row:
        lines.append(f"  {'pass' if row['holds'] else 'MISSED'}: {row['ratio']['median']:.1f}, at least {row['aim']:g}")
    if row.get("holds") is False or row.get("limit", {}).get("holds") is False:
        lines += [f"    {part['seconds']:8.2f} s {part['calls']:8} x {part['name']}" for part in row.get("profile", [])]
    return lines


def _limit(limit: dict[str, Any]) -> str:
    verdict = "pass" if limit["holds"] else "MISSED"
    return f"{verdict}: {100 * limit['share']:.0f} % of the limit, at least {100 * limit['aim']:.0f} %"


def _other(other: dict[str, Any]) -> str:
    if "reason" in other:
        return f"not timed: {other['reason']}"
    gap = f"   differs by {other['largest_difference']:.1g}" if "largest_difference" in other else ""
    ratio, note = other["ratio"], f"  ({other['note']})" if other.get("note") else ""
    return (
        f"{_seconds(other['seconds']):>10}   {ratio['median']:.2f} x [{ratio['low']:.2f}, {ratio['high']:.2f}]"
        f"{gap}{note}"
    )


def _seconds(found: dict[str, float]) -> str:
    return f"{found['median']:.3g} s"
