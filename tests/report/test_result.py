"""A result survives the way to disk and back, and cannot be made to say what is not so."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from interpose.errors import InterposeError
from interpose.report import Result
from interpose.report.evidence import ControlEstimate, Estimate, Size, Verdict
from interpose.report.result import Chosen, EdgeScore

Make = Callable[..., Result]


@pytest.fixture
def data(results: dict[str, Result]) -> dict[str, Any]:
    """A result as JSON has it, to be spoilt."""
    return json.loads(results["tiny"].model_dump_json())


@pytest.mark.parametrize("kind", ["holds", "fails", "tiny", "long", "large"])
def test_a_result_comes_back_from_disk_as_it_was(results: dict[str, Result], tmp_path: Path, kind: str) -> None:
    path = results[kind].save(tmp_path / "result.json")
    assert Result.load(path) == results[kind]
    assert json.loads(path.read_text())["schema_version"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"], "a draft was left behind"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_scores_keep_every_bit(score: float) -> None:
    edge = EdgeScore(source="input", destination="logits", score=score)
    assert EdgeScore.model_validate_json(edge.model_dump_json()).score == score


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_no_measurement_is_refused_and_named(value: float) -> None:
    with pytest.raises(ValidationError, match=r"low\n.*is (nan|-?inf), which is no measurement"):
        Estimate(mean=0.0, low=value, high=1.0)


def test_nan_in_a_file_is_named_with_its_place(data: dict[str, Any], tmp_path: Path) -> None:
    data["curve"][2]["signed"]["mean"] = math.nan
    (tmp_path / "r.json").write_text(json.dumps(data))
    with pytest.raises(InterposeError, match=r"curve\.2\.signed\.mean: .*is nan, which is no measurement"):
        Result.load(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not a result: it is no JSON"),
        ("[]", "is not a result of interpose: it has no schema_version"),
        ("{}", "is not a result of interpose: it has no schema_version"),
        ('{"schema_version": 7}', "has schema version 7; this interpose reads version 1. Make the result again"),
        ('{"schema_version": 1}', "created: Field required"),
        (b"\xff\xfe\x00", "is not a result: it is no JSON"),
    ],
)
def test_a_file_that_is_no_result_is_refused_in_words(content: str | bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InterposeError, match=says):
        Result.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InterposeError, match=r"There is no result at .*nowhere\.json: No such file"):
        Result.load(tmp_path / "nowhere.json")


def test_many_faults_are_counted_and_not_all_listed(data: dict[str, Any], tmp_path: Path) -> None:
    for row in data["curve"]:
        row["edges"] = "many"
    (tmp_path / "r.json").write_text(json.dumps(data))
    with pytest.raises(InterposeError, match="and 6 more"):
        Result.load(tmp_path / "r.json")


def spoil_verdict(data: dict[str, Any]) -> None:
    data["verdict"]["holds"] = not data["verdict"]["holds"]


def spoil_size(data: dict[str, Any]) -> None:
    data["verdict"]["sizes"][3]["above"] = not data["verdict"]["sizes"][3]["above"]


def spoil(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (spoil_verdict, "verdict: the curve does not bear it out"),
        (spoil_size, "verdict: the curve does not bear it out"),
        (spoil("verdict", "required", value=[0.03]), "the curve has no size 0.03, which the verdict needs"),
        (spoil("chosen", "fraction", value=0.03), "chosen: its size 0.03 was not measured"),
        (spoil("heads", value=[[0.1, 0.2]]), "heads: expected 1 rows of 1 numbers"),
        (spoil("mlps", value=[]), "mlps: expected 1 numbers"),
        (spoil("top_edges", 0, "source", value="a5.h0"), "'a5.h0' is not in this model, which has 1 layers of 1 heads"),
        (spoil("top_edges", 0, "source", value="a5h0"), "'a5h0' names no part of a circuit: write input, a9.h6"),
        (spoil("top_edges", 0, "destination", value="a0.kv0<k>"), r"the edges of Edges\(grouped=False\)"),
        (spoil("areas", "shuffle", value={}), "areas.shuffle.cpr\n"),
        (spoil("curve", 0, "fraction", value=0.5), "curve: sizes must grow"),
        (spoil("curve", 0, "edges", value=999), "has 999 edges, but the graph only 8"),
        (spoil("curve", 9, "edges_after_pruning", value=9), "pruning cannot add edges: 8 before and 9 after"),
        (spoil("curve", 0, "signed", value={"mean": 0, "low": 1, "high": -1}), "the interval is upside down"),
        (spoil("created", value="2026-11-22T15:30:00+01:00"), r"is not in UTC: write it with \+00:00"),
        (spoil("created", value="2026-11-22T15:30:00"), "created"),
        (spoil("examples", "proof_split", value="train"), "both used the split 'train': a proof needs pairs that"),
        (spoil("accuracy", "rate", value=1.5), "accuracy.rate"),
        (spoil("surprise", value=1), "surprise\n.*Extra inputs are not permitted"),
        (spoil("question", "surprise", value=1), r"question\.surprise"),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(change: Callable, says: str, data: dict[str, Any]) -> None:
    change(data)
    with pytest.raises(ValidationError, match=says):
        Result.model_validate(data)


def test_a_result_cannot_be_changed(results: dict[str, Result]) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        results["tiny"].seed = 3  # pyright: ignore


def size(fraction: float, low: float, control_high: float) -> Size:
    return Size(
        fraction=fraction,
        edges=10,
        edges_after_pruning=9,
        signed=Estimate(mean=low + 0.1, low=low, high=low + 0.2),
        absolute=Estimate(mean=0, low=0, high=0),
        controls={
            "uniform": ControlEstimate(mean=0, low=-1, high=0.0, draws=5),
            "shuffled": ControlEstimate(mean=0, low=-1, high=control_high, draws=5),
        },
    )


@pytest.mark.parametrize(("low", "high", "holds"), [(0.3, 0.2, True), (0.2, 0.2, False), (0.1, 0.2, False)])
def test_the_claim_holds_only_where_the_interval_clears_every_control(low: float, high: float, holds: bool) -> None:
    verdict = Verdict.of([size(0.02, low, high), size(0.05, 0.9, 0.1)], [0.02, 0.05])
    assert verdict.holds is holds
    assert verdict.failed == (() if holds else (0.02,))


def test_sizes_that_the_claim_is_not_about_do_not_decide_it() -> None:
    assert Verdict.of([size(0.01, -0.5, 0.9), size(0.05, 0.9, 0.1)], [0.05]).holds


def test_the_parts_of_a_circuit_are_summed_over_the_edges_that_leave_them() -> None:
    ends = [("input", "m0", 0.5), ("m0", "a1.h2<q>", 0.25), ("m0", "a1.h2<k>", -1.0), ("a1.h2", "logits", 0.125)]
    edges = tuple(EdgeScore(source=s, destination=d, score=score) for s, d, score in ends)
    nodes = [(node.name, node.score) for node in Chosen.of(0.05, edges).nodes]
    assert nodes == [("input", 0.5), ("m0", -0.75), ("a1.h2", 0.125), ("logits", 0.125)]
