"""The sentences of a report, worded from its numbers: also where the claim fails."""

from dataclasses import dataclass

from interpose.report import words
from interpose.report.evidence import Size
from interpose.report.nodes import Node
from interpose.report.result import Result
from interpose.report.selection import Drawn

AREAS = (
    ("cpr", "CPR", "higher"),
    ("cmd", "CMD", "lower"),
    ("cpr_log", "CPR over log k", "higher"),
    ("cmd_log", "CMD over log k", "lower"),
)
CONTROLS = {
    "uniform": "drawn from all edges alike",
    "shuffled": "as many edges into each kind of reader (q, k, v, MLP, logits) of each layer as the circuit has, "
    "but others",
}


def task_title(result: Result) -> str:
    """The task as a title writes it: short names are initials."""
    name = result.question.task
    return name.upper() if len(name) <= 4 else name


def title(result: Result) -> str:
    """The headline; it claims a circuit only where the claim holds."""
    what = "The circuit for" if result.verdict.holds else "No proven circuit for"
    return f"{what} {task_title(result)} in {result.model.name}"


def strongest_heads(result: Result, most: int = 5) -> list[tuple[str, float]]:
    """The heads of largest absolute importance, by label."""
    scored = [(Node("head", i, j).label, value) for i, row in enumerate(result.heads) for j, value in enumerate(row)]
    ranked = sorted(scored, key=lambda item: -abs(item[1]))
    return [(label, value) for label, value in ranked[:most] if value]


def answer(result: Result) -> tuple[str, str]:
    """The report's two sentences.

    Args:
        result: What was found.

    Returns:
        What the circuit recovers beside random ones; and whether the claim holds, with the heads that matter most.
        Where the claim fails that is said first.
    """
    recovered, heads = _recovered(result), _heads(result)
    sizes = words.percents(result.verdict.required)
    if result.verdict.holds:
        return recovered, f"{heads}, and the claim holds: at {sizes} of the edges {_beaten(result, True)}."
    failed = words.percents(result.verdict.failed)
    required = f" (required at {sizes})" if failed != sizes else ""
    fails = f"The claim fails: at {failed} of the edges {_beaten(result, False)}{required}"
    recovered = recovered[0].lower() + recovered[1:]
    return f"{fails}; {recovered}", f"{heads}, but without proof these are candidates only."


def _recovered(result: Result) -> str:
    size = result.shown
    edges = f"{words.count(size.edges)} of {words.count(result.edges)}"
    random = words.listed([f"{words.interval(control)} ({name})" for name, control in size.controls.items()])
    return (
        f"The circuit with {words.percent(size.fraction)} of the edges ({edges}) recovers "
        f"{words.interval(size.signed)} of the behaviour{_beyond(size)}, while random circuits of that size recover "
        f"{random}."
    )


def _beyond(size: Size) -> str:
    """Why a circuit can show more of the behaviour than the whole model, where it does."""
    if size.signed.low <= 1:
        return ""
    return (
        " (more than the whole model, since edges that work against the answer are left out; "
        f"as many edges of the largest scores of either sign recover {words.interval(size.absolute)})"
    )


def _heads(result: Result) -> str:
    heads = strongest_heads(result)
    helping = [f"{label} ({words.brief(value)})" for label, value in heads if value > 0]
    against = [f"{label} ({words.brief(value)})" for label, value in heads if value < 0]
    if not heads:
        return "No head matters"
    one = len(heads) == 1
    matter = f"The {'head that matters' if one else 'heads that matter'} most"
    if not helping:
        return f"{matter}, {words.listed(against)}, {'works' if one else 'work'} against the answer"
    if not against:
        return f"{matter} {'is' if one else 'are'} {words.listed(helping)}"
    return f"{matter} are {words.listed(helping)} for the answer and {words.listed(against)} against it"


def _beaten(result: Result, won: bool) -> str:
    names = words.listed(result.controls)
    controls = f"{names} controls" if len(result.controls) > 1 else f"{names} control"
    lies = "lies" if won else "does not lie"
    return f"the 95{words.SPACE}% interval of the circuit {lies} above those of the {controls}"


def asked(result: Result) -> str:
    """What was asked, in one sentence."""
    model, method, examples = result.model, result.method, result.examples
    note = f" ({model.note})" if model.note else ""
    found, proved = f"Searched with {method.name} on {examples.search} pairs of prompts", f"{examples.proof} others"
    if method.given:
        found, proved = f"Scores read from {method.name}", f"{examples.proof} pairs of prompts"
    return (
        f"Which of the {words.count(result.edges)} edges of {model.name}{note} carry {task_title(result)}? "
        f"{found}, proved on {proved}."
    )


@dataclass(frozen=True)
class Card:
    """One figure at the top of the page: its name, its value, the value's interval, and what it is beside."""

    name: str
    value: str
    detail: str
    about: str


def cards(result: Result) -> tuple[Card, ...]:
    """The figures at the top of the page."""
    size, areas, accuracy = result.shown, result.areas["circuit"], result.accuracy
    beside = {
        key: words.listed([words.number(getattr(result.areas[name], key).mean) for name in result.controls])
        for key in ("cpr", "cmd")
    }
    return (
        Card(
            "Faithfulness",
            words.number(size.signed.mean),
            words.bounds(size.signed),
            f"with {words.percent(size.fraction)} of the edges; 1 is the whole model",
        ),
        Card("CPR", words.number(areas.cpr.mean), words.bounds(areas.cpr), f"higher is better; random {beside['cpr']}"),
        Card("CMD", words.number(areas.cmd.mean), words.bounds(areas.cmd), f"lower is better; random {beside['cmd']}"),
        Card(
            "The model is right",
            words.percent(accuracy.rate),
            f"[{100 * accuracy.low:.3g}, {100 * accuracy.high:.3g}]",
            f"of {accuracy.n} pairs; logit difference {words.number(result.behaviour.clean)}, corrupted "
            f"{words.number(result.behaviour.corrupt)}",
        ),
    )


def drawn(result: Result, picture: Drawn) -> str:
    """The caption of the drawing: which part of the circuit it is."""
    strongest = len(picture.links) - picture.joining
    joined = f" and {picture.joining} that join them to the input and the logits" if picture.joining else ""
    return (
        f"Drawn: the {strongest} strongest connections{joined}. They stand for {words.count(picture.edges)} of the "
        f"{words.count(len(result.chosen.edges))} edges that the circuit has after pruning; edges into a head's q, k "
        "and v from one place are drawn as one. Width grows with the square root of the score."
    )


def ranked(result: Result) -> str:
    """The caption of the heat map: the heads that matter most."""
    heads = [f"{label} {words.brief(value)}" for label, value in strongest_heads(result, 10)]
    return f"Strongest: {', '.join(heads)}." if heads else "No head has any importance."


def proof(result: Result) -> str:
    """What the proof found, in one or two sentences."""
    above = [size.fraction for size in result.curve if size.above_controls]
    sizes = f"at {words.percents(above)} of the edges" if above else "at no size"
    return (
        f"The 95{words.SPACE}% interval of the circuit lies above those of all random controls {sizes}. "
        f"The claim asks for this at {words.percents(result.verdict.required)}, and "
        f"{'holds' if result.verdict.holds else 'fails'}."
    )


def draws(result: Result) -> str:
    """How often each control was drawn."""
    return words.listed([f"{control.draws} draws of {name}" for name, control in result.shown.controls.items()])
