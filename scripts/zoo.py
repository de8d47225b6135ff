"""Write the tables of docs/zoo.md, each between its two marks: the models' cards, and what finds their circuits.

    .venv/bin/python scripts/zoo.py [docs/zoo.md [benchmarks/results/truth.json]]

The same cards and the same result give the same text; `tests/zoo/test_page.py` compares.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interpose.loading.cards import Card, Score, cards

PAGE, RESULT = Path("docs/zoo.md"), Path("benchmarks/results/truth.json")


def main(arguments: Sequence[str]) -> int:
    """Rewrite the tables.

    Args:
        arguments: the page, and the result; each may be left out.

    Returns:
        the exit code: 0 done, 1 where a file or a mark is missing.
    """
    page, result = [*map(Path, arguments), *(PAGE, RESULT)[len(arguments) :]]
    try:
        text = filled(page.read_text(encoding="utf-8"), "models", models(cards()))
        text = filled(text, "truth", truths(json.loads(result.read_text(encoding="utf-8"))))
    except (OSError, ValueError) as error:
        print(f"zoo: {error}", file=sys.stderr)
        return 1
    page.write_text(text, encoding="utf-8")
    return 0


def filled(text: str, name: str, made: str) -> str:
    """A page's text with a new block; raises ValueError where it has not one pair of marks."""
    begin, end = f"<!-- {name}:begin -->\n", f"\n<!-- {name}:end -->"
    found = re.findall(f"{begin}.*?{end}", text, flags=re.DOTALL)
    if len(found) != 1:
        raise ValueError(f"the page has {len(found)} pairs of lines {begin.strip()} and {end.strip()}; expected one")
    return text.replace(found[0], f"{begin}{made}{end}")


def models(known: Mapping[str, Card]) -> str:
    """The table of the models that interpose made."""
    lines = [
        "| model | what | task | network | made | right first | true edges |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, card in known.items():
        if card.made is None:
            continue
        network = f"{card.architecture}, {card.parameters:,} parameters"
        steps = f"{card.made.steps:,} steps, {card.made.cost}" if card.made.steps else "by hand"
        score = next((_score(card.scores[key]) for key in ("first", *card.scores) if key in card.scores), "")
        edges = str(len(card.truth.edges)) if card.truth else "not known"
        lines.append(f"| `{name}` | {card.what} | `{card.task}` | {network} | {steps} | {score} | {edges} |")
    return "\n".join(lines)


def truths(result: Mapping[str, Any]) -> str:
    """The table of AUROCs: a row a method, a column a model, with the seconds that all models took."""
    columns = list(result["models"])
    lines = [
        "| method | " + " | ".join(f"`{name}`" for name in columns) + " | seconds |",
        "|---|" + "---|" * (len(columns) + 1),
    ]
    for method, row in result["methods"].items():
        cells = [f"{row[name]['auroc']:.3f}" if name in row else "" for name in columns]
        seconds = sum(cell["seconds"] for cell in row.values())
        lines.append(f"| `{method}` | {' | '.join(cells)} | {seconds:.1f} |")
    return "\n".join(lines)


def _score(score: Score) -> str:
    return f"{score.value:.1%} [{score.low:.1%}, {score.high:.1%}]"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
