"""What one run of ``interpose locate`` found, as data: the file ``result.json``.

`Result` is checked when it is made: a result that contradicts itself (a verdict that its curve does not bear out, a
head that the model does not have, a number that is not finite) cannot be written.
"""

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field, ValidationError, model_validator

from interpose.errors import InterposeError
from interpose.report.evidence import Areas, Count, Finite, Part, Size, Verdict
from interpose.report.nodes import Node, parse

SCHEMA_VERSION = 1


def _known(name: str) -> str:
    parse(name)
    return name


NodeName = Annotated[str, AfterValidator(_known)]
Rate = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Setting = bool | int | float | str | None


class Question(Part):
    """What was asked: the task, and one of its pairs of prompts."""

    task: str
    description: str
    counterfactual: str
    clean: str
    corrupt: str
    answer: str
    wrong: str


class ModelCard(Part):
    """Which model was looked at; `weights_hash` is a sha256 in hex, `parameters` a count."""

    name: str
    source: str
    note: str = ""
    licence: str = ""
    weights_hash: str
    layers: Positive
    heads: Positive
    parameters: Count
    dtype: str
    device: str


class MethodCard(Part):
    """How edges were scored: the method's name, settings and a sentence; or, where `given`, the file they came from."""

    name: str
    settings: dict[str, Setting] = Field(default_factory=dict)
    summary: str
    given: bool = False


class Examples(Part):
    """How many pairs were used to search and, from another split, to prove."""

    search: Positive
    proof: Positive
    search_split: str
    proof_split: str

    @model_validator(mode="after")
    def _held_out(self) -> "Examples":
        if self.search_split == self.proof_split:
            raise ValueError(
                f"both used the split '{self.search_split}': a proof needs pairs that the search did not see"
            )
        return self


class Accuracy(Part):
    """How often the model itself prefers the answer to the wrong one, with a 95 % interval, over `n` pairs."""

    rate: Rate
    low: Rate
    high: Rate
    n: Positive


class Behaviour(Part):
    """The mean logit difference, answer minus wrong, on the clean and on the corrupted prompts."""

    clean: Finite
    corrupt: Finite


class EdgeScore(Part):
    """One edge; a positive score says that it helps the behaviour."""

    source: NodeName
    destination: NodeName
    score: Finite


class NodeScore(Part):
    """One part of the model, and the sum of the scores of its edges in the circuit (see `Chosen.of`)."""

    name: NodeName
    score: Finite


class Chosen(Part):
    """The circuit that is shown: its size as a fraction of all edges, its edges after pruning, its parts."""

    fraction: Rate
    edges: tuple[EdgeScore, ...]
    nodes: tuple[NodeScore, ...]

    @classmethod
    def of(cls, fraction: float, edges: tuple[EdgeScore, ...]) -> "Chosen":
        """Make it from its edges.

        A part's score is the sum over the edges that leave it; for the logits, over those that enter.
        """
        totals: dict[Node, float] = {}
        for edge in edges:
            source, destination = parse(edge.source)[0], parse(edge.destination)[0]
            totals[source] = totals.get(source, 0.0) + edge.score
            entering = edge.score if destination.kind == "logits" else 0.0
            totals[destination] = totals.get(destination, 0.0) + entering
        order = sorted(totals, key=lambda node: (*node.depth, node.head))
        nodes = tuple(NodeScore(name=node.name, score=totals[node]) for node in order)
        return cls(fraction=fraction, edges=edges, nodes=nodes)


def _in_utc(moment: datetime) -> datetime:
    if moment.utcoffset() != timedelta(0):
        raise ValueError(f"{moment.isoformat()} is not in UTC: write it with +00:00")
    return moment


class Result(Part):
    """Everything one run found, and everything needed to run it again.

    Attributes:
        edges: Edges in the whole graph.
        curve: One entry a size, smallest first.
        areas: Areas of the method's ranking under ``circuit``, and of each control under its name.
        heads: Importance of each head, layers x heads: the sum of the scores of all edges that leave it.
        mlps: The same for each layer's MLP.
        timings: Seconds, by stage.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    created: Annotated[AwareDatetime, AfterValidator(_in_utc)]
    command: str
    question: Question
    model: ModelCard
    method: MethodCard
    seed: int
    examples: Examples
    accuracy: Accuracy
    behaviour: Behaviour
    edges: Positive
    curve: tuple[Size, ...] = Field(min_length=2)
    areas: dict[str, Areas]
    verdict: Verdict
    chosen: Chosen
    heads: tuple[tuple[Finite, ...], ...]
    mlps: tuple[Finite, ...]
    top_edges: tuple[EdgeScore, ...]
    timings: dict[str, Finite]
    peak_memory_bytes: Count
    versions: dict[str, str]
    machine: str

    @model_validator(mode="after")
    def _consistent(self) -> "Result":
        _check_curve(self)
        _check_verdict(self)
        _check_parts(self)
        return self

    @property
    def controls(self) -> tuple[str, ...]:
        """The names of the random controls."""
        return tuple(self.curve[0].controls)

    @property
    def shown(self) -> Size:
        """The measurements of the circuit that is shown."""
        return next(size for size in self.curve if size.fraction == self.chosen.fraction)

    def save(self, path: Path | str) -> Path:
        """Write the result as JSON; the file appears whole or not at all.

        Args:
            path: Where to; its folder must exist.

        Returns:
            The path.
        """
        path = Path(path)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        draft.replace(path)
        return path

    @classmethod
    def load(cls, path: Path | str) -> "Result":
        """Read a result that `save` wrote.

        Args:
            path: The file.

        Returns:
            The result.

        Raises:
            InterposeError: There is no such file, it is not JSON, its schema is another version, or a value is wrong.
        """
        path = Path(path)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InterposeError(f"There is no result at {path}: {error.strerror}.") from error
        except ValueError as error:
            raise InterposeError(f"{path} is not a result: it is no JSON ({error}).") from error
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            raise InterposeError(_other_version(path, version))
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise InterposeError(f"{path} is not a valid result:\n{_listed(error)}") from error


def _other_version(path: Path, version: object) -> str:
    if version is None:
        return f"{path} is not a result of interpose: it has no schema_version."
    return (
        f"{path} has schema version {version}; this interpose reads version {SCHEMA_VERSION}. "
        "Make the result again with this version, or read it with the version that made it."
    )


def _listed(error: ValidationError, most: int = 5) -> str:
    problems = error.errors(include_url=False, include_context=False)
    lines = [f"  {'.'.join(map(str, problem['loc'])) or 'result'}: {problem['msg']}" for problem in problems[:most]]
    more = len(problems) - most
    return "\n".join(lines + ([f"  and {more} more"] if more > 0 else []))


def _check_curve(result: Result) -> None:
    fractions = [size.fraction for size in result.curve]
    if any(low >= high for low, high in zip(fractions, fractions[1:], strict=False)):
        raise ValueError(f"curve: sizes must grow, but they are {fractions}")
    for size in result.curve:
        if size.edges > result.edges:
            raise ValueError(
                f"curve: the size {size.fraction} has {size.edges} edges, but the graph only {result.edges}"
            )
        if tuple(size.controls) != result.controls:
            raise ValueError(
                f"curve: the size {size.fraction} has other controls than the first size: {[*size.controls]}"
            )
    if result.chosen.fraction not in fractions:
        raise ValueError(f"chosen: its size {result.chosen.fraction} was not measured: the curve has {fractions}")
    if set(result.areas) != {"circuit", *result.controls}:
        raise ValueError(f"areas: expected circuit and {', '.join(result.controls)}; got {', '.join(result.areas)}")


def _check_verdict(result: Result) -> None:
    if result.verdict != (expected := Verdict.of(result.curve, result.verdict.required)):
        raise ValueError(
            "verdict: the curve does not bear it out "
            f"(it says holds={result.verdict.holds}, the curve gives holds={expected.holds} "
            f"with {[size.fraction for size in expected.sizes if size.above]} above the controls): "
            "make it with Verdict.of(curve, required)"
        )


def _check_parts(result: Result) -> None:
    layers, heads = result.model.layers, result.model.heads
    if len(result.heads) != layers or any(len(row) != heads for row in result.heads):
        raise ValueError(f"heads: expected {layers} rows of {heads} numbers, as the model has layers and heads")
    if len(result.mlps) != layers:
        raise ValueError(f"mlps: expected {layers} numbers, as the model has layers; got {len(result.mlps)}")
    names = {name for edge in (*result.chosen.edges, *result.top_edges) for name in (edge.source, edge.destination)}
    for name in sorted(names | {node.name for node in result.chosen.nodes}):
        node = parse(name)[0]
        if node.layer >= layers or node.head >= heads:
            raise ValueError(f"'{name}' is not in this model, which has {layers} layers of {heads} heads")
