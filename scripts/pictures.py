"""Make the pictures that the documentation shows; the same model and the same measurements give the same pictures.

.venv/bin/python scripts/pictures.py [docs/images]              of one prompt: lens and attention
.venv/bin/python scripts/pictures.py --growth [docs/images]     of benchmarks/results/growth.json
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

import interpose as ip
from interpose.report.paper import HAIR, INK, SOFT, lettering

GROWTH = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "growth.json"
PANELS = {"layers": "layers, prompt of 14 tokens", "length": "tokens of the prompt, 30 layers"}
LINES = {"raw hooks": ("#c4562c", "s"), "interpose": ("#1d5fbf", "o")}


def main(arguments: Sequence[str]) -> int:
    """Make pictures.

    Args:
        arguments: `--growth` for the growth plots, then the folder; each may be left out.

    Returns:
        the exit code: 0 done, 1 where nothing was measured.
    """
    folders = [Path(argument) for argument in arguments if argument != "--growth"]
    folder = folders[0] if folders else Path("docs/images")
    if len(folders) == len(arguments):
        return of_prompts(folder)
    if not GROWTH.is_file():
        print(f"pictures: There are no measurements at {GROWTH}. `make bench` makes them.", file=sys.stderr)
        return 1
    print(growth(json.loads(GROWTH.read_text(encoding="utf-8")), folder / "growth.svg"))
    return 0


def of_prompts(folder: Path) -> int:
    """The pictures of one prompt each."""
    model = ip.load("smollm2-135m-instruct")
    lens = ip.report.lens(model, "The Eiffel Tower is in the city of", target=" Paris")
    attention = ip.report.attention(model, "When John and Mary went to the store, John gave a drink to", layer=23)
    for name, picture in {"lens": lens, "attention": attention}.items():
        print(picture.save(folder / f"{name}.png"))
    return 0


def growth(measured: dict[str, Any], path: Path) -> Path:
    """Time a patch against layers and against length, both axes logarithmic.

    Args:
        measured: what `benchmarks/growth.py` wrote.
        path: the picture, an SVG.

    Returns:
        the path.
    """
    with lettering(), rc_context({"svg.hashsalt": "growth"}):
        figure = Figure(figsize=(7.2, 2.9), layout="constrained", facecolor="white")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, (name, label) in zip(axes, PANELS.items(), strict=True):
            _panel(axis, measured["plots"][name], label)
        axes[0].set_ylabel("milliseconds a patch")
        axes[0].legend(frameon=False)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    return path


def _panel(axis: Any, points: list[dict[str, Any]], label: str) -> None:
    points = [point for point in points if "reason" not in point]
    sizes = [point["size"] for point in points]
    for name, (colour, marker) in LINES.items():
        low, middle, high = ([1e3 * point[name][key] for point in points] for key in ("low", "median", "high"))
        axis.fill_between(sizes, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.plot(sizes, middle, color=colour, marker=marker, markersize=4, linewidth=1.5, label=name)
    axis.set(xscale="log", yscale="log", xlabel=label)
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.grid(color=HAIR, linewidth=0.6)
    axis.tick_params(colors=SOFT, labelcolor=INK, length=0)
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
