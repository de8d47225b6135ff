"""One result as one page: a single HTML file that loads nothing from anywhere.

A content security policy in the page forbids every request and every script but its own, so that even a hostile prompt
in a result could do nothing.
"""

import base64
import difflib
import hashlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from interpose.report import figures, story, words
from interpose.report.nodes import Node, parse
from interpose.report.result import EdgeScore, Result

_SHARED = 160  # characters of a shared stretch that are shown at either end


def write(result: Result, path: Path | str) -> Path:
    """Write a result as a page; the file appears whole or not at all.

    Args:
        result: What was found.
        path: Where to; its folder must exist.

    Returns:
        The path.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(html(result), encoding="utf-8")
    draft.replace(path)
    return path


def html(result: Result) -> str:
    """The page's text.

    Args:
        result: What was found.

    Returns:
        HTML.
    """
    script = asset("theme.js") + asset("script.js")
    page = figures.environment().get_template("page.html")
    return page.render(
        result=result,
        words=words,
        story=story,
        style=Markup(asset("style.css")),
        # Both come from this package and from nowhere else, so they may stand in the page as they are.
        script=Markup(script),
        script_hash=script_hash(script),
        prompts=_prompts(result),
        areas=[
            (name, better, [getattr(result.areas[ranking], key) for ranking in ("circuit", *result.controls)])
            for key, name, better in story.AREAS
        ],
        edges=_rows(result.top_edges),
        facts=_facts(result),
        **figures.draw(result),
    )


def asset(name: str) -> str:
    """A file of the templates' folder."""
    return (files("interpose.report") / "templates" / name).read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """What a content security policy calls a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@dataclass(frozen=True)
class Prompt:
    """One prompt of the example: its text in pieces, each with whether it differs from the other prompt."""

    name: str
    pieces: tuple[tuple[str, bool], ...]
    answer: str
    note: str


def _prompts(result: Result) -> tuple[Prompt, Prompt]:
    question, behaviour = result.question, result.behaviour
    clean, corrupt = _pieces(question.clean, question.corrupt), _pieces(question.corrupt, question.clean)
    means = [f"mean logit difference {words.number(value)}" for value in (behaviour.clean, behaviour.corrupt)]
    answer, wrong = question.answer.strip(), question.wrong.strip()
    return (
        Prompt("Clean prompt", clean, answer, f"Answer “{answer}”, not “{wrong}”: {means[0]}."),
        Prompt("Corrupted prompt", corrupt, "…", f"“{answer}” against “{wrong}” again: {means[1]}."),
    )


def _pieces(text: str, other: str) -> tuple[tuple[str, bool], ...]:
    """Cut a text where it begins or ends to differ from another, word by word."""
    mine, theirs = re.findall(r"\s+|\w+|[^\w\s]", text), re.findall(r"\s+|\w+|[^\w\s]", other)
    blocks = difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes()
    cut = [("".join(mine[a:b]), tag != "equal") for tag, a, b, _, _ in blocks if b > a]
    return tuple((text if differs else _shortened(text), differs) for text, differs in cut)


def _shortened(text: str) -> str:
    """Leave out the middle of a long stretch that both prompts share; ``result.json`` has it in full."""
    return text if len(text) <= 2 * _SHARED else f"{text[:_SHARED].rstrip()} […] {text[-_SHARED:].lstrip()}"


@dataclass(frozen=True)
class Row:
    """One edge of the table; `share` is its size in percent of the largest."""

    source: str
    destination: str
    entry: str
    score: float
    share: float


def _rows(edges: tuple[EdgeScore, ...]) -> Iterator[Row]:
    largest = max((abs(edge.score) for edge in edges), default=0.0) or 1.0
    for edge in edges:
        (source, _), (destination, entry) = parse(edge.source), parse(edge.destination)
        share = 100 * abs(edge.score) / largest
        yield Row(_long(source), _long(destination), _entry(destination, entry), edge.score, share)


def _long(node: Node) -> str:
    kinds = {"head": f"head {node.label}", "mlp": f"MLP {node.label}"}
    return kinds.get(node.kind, node.kind)


def _entry(node: Node, entry: str) -> str:
    names = {"q": "query", "k": "key", "v": "value"}
    return names.get(entry, "") if node.kind == "head" else ""


def _facts(result: Result) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    model, method, examples = result.model, result.method, result.examples
    pairs = f"{examples.search} to search ({examples.search_split}), {examples.proof} to prove ({examples.proof_split})"
    if method.given:
        pairs = f"{examples.proof} to prove ({examples.proof_split})"
    settings = ", ".join(f"{name} = {value}" for name, value in method.settings.items()) or "none"
    return (
        (
            "Model",
            (
                ("name", f"{model.name}{f' ({model.note})' if model.note else ''}"),
                ("source", model.source),
                ("licence", model.licence or "not stated"),
                ("parameters", words.count(model.parameters)),
                ("layers × heads", f"{model.layers} × {model.heads}"),
                ("ran as", f"{model.dtype} on {model.device}"),
                ("weights sha256", model.weights_hash),
            ),
        ),
        (
            "Method and data",
            (
                ("method", method.name),
                ("settings", settings),
                ("what it does", method.summary),
                ("task", f"{result.question.task}, counterfactual {result.question.counterfactual}"),
                ("seed", str(result.seed)),
                ("pairs", pairs),
            ),
        ),
        ("Time and memory", (*_timings(result), ("peak memory", words.memory(result.peak_memory_bytes)))),
        ("Versions", (*result.versions.items(), ("machine", result.machine))),
    )


def _timings(result: Result) -> tuple[tuple[str, str], ...]:
    rows = [(stage, words.duration(seconds)) for stage, seconds in result.timings.items()]
    return (*rows, ("together", words.duration(math.fsum(result.timings.values()))))
