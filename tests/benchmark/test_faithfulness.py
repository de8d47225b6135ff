import json
import math
from collections.abc import Callable, Iterable, Iterator

import pytest
import torch

from interpose.benchmark import SIZES, Proof, ProofSettings, prove
from interpose.benchmark.grid import budgets
from interpose.errors import SearchError
from interpose.models.stream import StreamGraph
from interpose.search import Scores

GRAPH = StreamGraph(6, 4)
EXAMPLES = 24
GENERATOR = torch.Generator().manual_seed(0)
EMPTY = torch.randn(EXAMPLES, generator=GENERATOR, dtype=torch.float64) / 4
GAIN = 2 + torch.rand(EXAMPLES, generator=GENERATOR, dtype=torch.float64)
QUICK = ProofSettings(resamples=1000)


def behaviour(share: Callable[[torch.Tensor], float]) -> Callable[[torch.Tensor], Iterator[torch.Tensor]]:
    """Runs circuits of a pretended model of which a circuit brings back a given share."""

    def evaluate(masks: torch.Tensor) -> Iterator[torch.Tensor]:
        for mask in masks:
            yield EMPTY + share(mask) * GAIN

    return evaluate


def effects() -> torch.Tensor:
    """What each edge is worth: a few much, some the opposite of it; the whole graph is worth 1."""
    worth = torch.randn(GRAPH.n_edges, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 5
    worth[0] += 100
    return worth / worth.sum()


additive = behaviour(lambda mask: float(effects()[mask].sum()))


def proof_of(values: torch.Tensor, evaluate: Callable[[torch.Tensor], Iterable[torch.Tensor]], **kwargs) -> Proof:
    return prove(Scores(values, GRAPH.edges), GRAPH, evaluate, QUICK, **kwargs)


def test_a_useless_ranking_and_its_controls_score_as_published() -> None:
    proof = proof_of(effects(), behaviour(lambda mask: float(mask.all())))
    for curves in (proof.circuit, *proof.controls.values()):
        assert curves.cpr.value == pytest.approx(0.25)
        assert curves.cmd.value == pytest.approx(0.749)
        assert (curves.cpr.low, curves.cmd.high) == pytest.approx((0.25, 0.749))
        assert curves.log_cpr.value == pytest.approx(math.log(2) / 2 / math.log(1000))
    assert not proof.above_controls(0.1)


def test_a_perfect_ranking_scores_as_published() -> None:
    number = GRAPH.edges.number("input->logits")
    values = torch.zeros(GRAPH.n_edges)
    values[number] = 1
    proof = proof_of(values, behaviour(lambda mask: float(mask[number])))
    assert (proof.cpr.value, proof.cmd.value) == pytest.approx((0.999, 0))
    assert (proof.circuit.log_cpr.value, proof.circuit.log_cmd.value) == pytest.approx((1, 0))
    assert all(curves.cpr.value < 0.999 for curves in proof.controls.values())
    assert {"uniform", "shuffled"} == set(proof.controls)


def test_the_curves_are_those_of_the_circuits_cut_from_the_scores() -> None:
    scores = Scores(effects(), GRAPH.edges)
    proof = prove(scores, GRAPH, additive, QUICK)
    for curve, absolute in ((proof.circuit.signed, False), (proof.circuit.absolute, True)):
        for point, size, budget in zip(curve.points, SIZES, budgets(GRAPH.n_edges), strict=True):
            circuit = scores.circuit(budget, absolute=absolute)
            assert (point.size, point.budget, point.kept) == (size, budget, len(circuit))
            assert point.faithfulness.value == pytest.approx(float(effects()[circuit.mask].sum()), abs=1e-9)
            assert point.draws == pytest.approx((point.faithfulness.value,))
    # Signed circuits leave out what works against the behaviour, so that they overshoot.
    assert proof.circuit.signed.at(0.2).faithfulness.value > 1
    assert proof.cpr.value > proof.controls["shuffled"].cpr.value
    assert proof.above_controls(0.1)


def test_the_controls_are_means_over_draws() -> None:
    proof = proof_of(effects(), additive)
    for curves in proof.controls.values():
        for point in (*curves.signed.points, *curves.absolute.points):
            assert len(point.draws) == 5
            assert sum(point.draws) / 5 == pytest.approx(point.faithfulness.value)
            assert point.faithfulness.low <= point.faithfulness.value <= point.faithfulness.high
    assert len(set(proof.controls["uniform"].signed.at(0.5).draws)) == 5


def test_full_and_empty_are_the_ends_of_every_curve() -> None:
    proof = proof_of(effects(), additive)
    assert proof.full.value == pytest.approx(float((EMPTY + GAIN).mean()))
    assert proof.empty.value == pytest.approx(float(EMPTY.mean()))
    assert proof.full.low < proof.full.value < proof.full.high
    for curves in (proof.circuit, *proof.controls.values()):
        assert curves.signed.at(1.0).faithfulness.value == pytest.approx(1)
        assert curves.signed.at(1.0).kept == GRAPH.n_edges


def test_equal_circuits_are_run_once() -> None:
    seen: list[bytes] = []

    def evaluate(masks: torch.Tensor) -> Iterator[torch.Tensor]:
        for mask in masks:
            seen.append(mask.numpy().tobytes())
            yield from additive(mask[None])

    proof = proof_of(effects(), evaluate)
    assert len(seen) == len(set(seen)) == proof.evaluations
    # Of the 220 curve points, size 1 is one circuit, and the uniform control has the same ones for both signs.
    assert proof.evaluations <= 2 + 9 * (2 + 5 + 2 * 5)


def test_progress_counts_up_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    proof = proof_of(effects(), additive, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (proof.evaluations, proof.evaluations)
    assert {done for done, _ in told} == set(range(proof.evaluations + 1))


def test_a_proof_that_was_cut_off_goes_on_where_it_stopped() -> None:
    cache: dict[str, torch.Tensor] = {}
    runs = 0

    def evaluate(masks: torch.Tensor) -> Iterator[torch.Tensor]:
        nonlocal runs
        for mask in masks:
            runs += 1
            if runs == 10:
                raise KeyboardInterrupt
            yield from additive(mask[None])

    with pytest.raises(KeyboardInterrupt):
        proof_of(effects(), evaluate, cache=cache)
    assert len(cache) == 9
    proof = proof_of(effects(), evaluate, cache=cache)
    assert runs == proof.evaluations + 1
    assert proof == proof_of(effects(), additive)


def test_a_tensor_of_all_results_will_do() -> None:
    assert proof_of(effects(), lambda masks: torch.stack(list(additive(masks)))) == proof_of(effects(), additive)


def test_the_seed_decides_the_controls() -> None:
    scores = Scores(effects(), GRAPH.edges)
    first, other = (prove(scores, GRAPH, additive, ProofSettings(resamples=1000, seed=seed)) for seed in (0, 1))
    assert first.controls != other.controls
    assert first.cpr.value == other.cpr.value
    more = prove(scores, GRAPH, additive, ProofSettings(resamples=1000, draws=6))
    draws = [each.controls["shuffled"].signed.at(0.2).draws for each in (first, more)]
    assert draws[1][:5] == pytest.approx(draws[0])


def test_a_proof_survives_json() -> None:
    proof = proof_of(effects(), additive)
    text = json.dumps(proof.to_dict(), allow_nan=False)
    assert Proof.from_dict(json.loads(text)) == proof
    assert json.loads(text)["schema"] == 1


def test_what_is_not_a_proof_is_refused() -> None:
    data = proof_of(effects(), additive).to_dict()
    with pytest.raises(SearchError, match="This proof has schema 7, but this interpose reads schema 1"):
        Proof.from_dict({**data, "schema": 7})
    del data["circuit"]
    with pytest.raises(SearchError, match="This is not a whole proof: 'circuit'. Expected what to_dict"):
        Proof.from_dict(data)


def test_a_proof_prints_as_a_table() -> None:
    lines = str(proof_of(effects(), additive)).splitlines()
    assert lines[0].split() == ["size", "edges", "circuit", "uniform", "shuffled"]
    assert len(lines) == 1 + 10 + 4
    assert lines[10].split()[:2] == ["1", "1,108"]
    assert lines[11].startswith("              CPR  ")


def test_a_size_that_was_not_measured_is_refused() -> None:
    with pytest.raises(SearchError, match=r"No circuit of size 0.3 was measured. The sizes are 0.001, 0.002, .*, 1\."):
        proof_of(effects(), additive).above_controls(0.3)


def test_nothing_more_is_run_where_there_is_nothing_to_explain() -> None:
    runs = 0

    def evaluate(masks: torch.Tensor) -> Iterator[torch.Tensor]:
        nonlocal runs
        for _ in masks:
            runs += 1
            yield EMPTY

    with pytest.raises(SearchError, match="Faithfulness is not defined"):
        proof_of(effects(), evaluate)
    assert runs == 2


def test_scores_of_another_graph_are_refused() -> None:
    scores = Scores(torch.zeros(46), StreamGraph(2, 2).edges)
    with pytest.raises(SearchError, match="These are not about the same units: .*layers=2.* against .*layers=6"):
        prove(scores, GRAPH, additive)


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        (lambda masks: torch.zeros(len(masks)), r"A circuit of 1,108 edges gave a metric of shape \[\]. Expected one"),
        (behaviour(lambda mask: math.nan), r"gave a metric of shape \[24\], not all of it finite. Expected one finite"),
        (lambda masks: [EMPTY], "2 circuits were to be run, but 1 gave a result. Give one for each."),
        (lambda masks: [EMPTY] * 3, "2 circuits were to be run, but more gave a result"),
        (lambda masks: [EMPTY, EMPTY[:5]], "Circuits were run on different numbers of examples"),
    ],
)
def test_an_evaluation_that_does_not_fit_is_named(evaluate, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        proof_of(effects(), evaluate)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draws": 4}, "A control needs at least 5 draws, but draws is 4"),
        ({"resamples": 10}, "An interval needs at least 1000 resamples, but resamples is 10"),
        ({"level": 95.0}, "The level of an interval lies between 0 and 1, but level is 95.0"),
        ({"sizes": (0.5,)}, "Circuit sizes are two or more shares"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        ProofSettings(**settings)


def test_a_score_tensor_of_any_float_kind_will_do() -> None:
    assert proof_of(effects().float(), additive).circuit.signed.points[0].budget == 1
    assert proof_of(effects().bfloat16(), additive).evaluations > 2
