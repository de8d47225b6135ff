import math

import pytest
import torch
from hypothesis import given, strategies as st

from interpose.errors import SearchError
from interpose.metrics.accuracy import accuracy
from interpose.metrics.area import area
from interpose.metrics.auroc import auroc
from interpose.metrics.cmd import cmd
from interpose.metrics.cpr import cpr
from interpose.metrics.faithfulness import faithfulness
from interpose.metrics.kl import kl
from interpose.metrics.logit_difference import logit_difference

SIZES = torch.tensor([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0], dtype=torch.float64)


def test_logit_difference_is_answer_minus_wrong_answer() -> None:
    logits = torch.tensor([[1.0, 5.0, -2.0], [0.0, 3.0, 4.0]])
    assert logit_difference(logits, torch.tensor([[1, 2], [0, 2]])).tolist() == [7.0, -4.0]


def test_logit_difference_carries_gradients_to_both_logits() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    logit_difference(logits, torch.tensor([[0, 2]])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[1.0, 0.0, -1.0]]


def test_kl_by_hand() -> None:
    target = torch.tensor([[0.75, 0.25]]).log()
    output = torch.tensor([[0.5, 0.5]]).log()
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert kl(output, target).item() == pytest.approx(expected, abs=1e-6)
    assert kl(target, target).item() == pytest.approx(0, abs=1e-7)


def test_kl_is_summed_over_the_vocabulary() -> None:
    # A mean over the vocabulary would shrink when tokens that nobody expects are added.
    output, target = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    never = torch.full((1, 1000), -1e9)
    wide = kl(torch.cat([output, never], -1), torch.cat([target, never], -1))
    assert wide.item() == pytest.approx(kl(output, target).item(), rel=1e-6)


def test_kl_with_tokens_ruled_out() -> None:
    ruled_out = torch.tensor([[0.0, -math.inf]])
    even = torch.tensor([[0.0, 0.0]])
    assert kl(ruled_out, ruled_out).item() == 0
    assert kl(even, ruled_out).item() == pytest.approx(math.log(2))
    assert kl(ruled_out, even).item() == math.inf


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=6), st.integers(0, 2**32))
def test_kl_agrees_with_torch_distributions(logits: list[float], seed: int) -> None:
    target = torch.tensor([logits], dtype=torch.float64)
    output = torch.randn(target.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    distributions = (torch.distributions.Categorical(logits=each) for each in (target, output))
    assert kl(output, target).allclose(torch.distributions.kl_divergence(*distributions), atol=1e-9)


def test_accuracy_is_one_where_the_answer_is_likeliest() -> None:
    logits = torch.tensor([[1.0, 5.0], [1.0, 0.0], [3.0, 2.0]])
    assert accuracy(logits, torch.tensor([1, 1, 0])).tolist() == [1.0, 0.0, 1.0]


def test_faithfulness_by_hand() -> None:
    assert faithfulness(2.5, 4.0, 1.0).item() == 0.5
    curve = faithfulness(torch.tensor([1.0, 4.0, 5.5, -0.5]), torch.tensor(4.0), torch.tensor(1.0))
    assert curve.tolist() == [0.0, 1.0, 1.5, -0.5]


@pytest.mark.parametrize(("full", "empty"), [(2.0, 2.0), (0.0, 0.0), (1e8, 1e8 + 8)])
def test_faithfulness_without_anything_to_explain_is_refused(full: float, empty: float) -> None:
    with pytest.raises(SearchError, match=r"Faithfulness is not defined: .* have the same metric, .*Use a task that"):
        faithfulness(1.0, full, empty)


def test_area_by_hand() -> None:
    sizes = torch.tensor([1.0, 2.0, 4.0])
    assert area(sizes, torch.tensor([0.0, 1.0, 3.0])).item() == 0.5 + 4.0
    assert area(sizes, torch.tensor([0.0, 1.0, 3.0]), log=True).item() == pytest.approx(2.5 * math.log(2))
    assert area(sizes, torch.ones(2, 3)).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("sizes", "log", "message"),
    [
        ([0.1], False, r"An area needs two or more sizes that rise, but got \[0.1"),
        ([0.2, 0.1], False, "sizes that rise, but got"),
        ([0.0, 0.5], True, "sizes that rise and are above 0, but got"),
    ],
)
def test_an_area_over_no_range_is_refused(sizes: list[float], log: bool, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        area(torch.tensor(sizes), torch.ones(len(sizes)), log=log)


def test_a_useless_ranking_has_cpr_a_quarter_and_cmd_three() -> None:
    useless = (SIZES == 1).double()
    assert cpr(SIZES, useless).item() == pytest.approx(0.25)
    assert cmd(SIZES, useless).item() == pytest.approx(0.749)


def test_a_perfect_ranking_has_cpr_one_and_cmd_none() -> None:
    perfect = torch.ones(10, dtype=torch.float64)
    assert cpr(SIZES, perfect).item() == pytest.approx(0.999)
    assert cmd(SIZES, perfect).item() == 0
    assert cpr(SIZES, perfect, log=True).item() == pytest.approx(math.log(1000))


def test_overshooting_adds_to_both() -> None:
    double = torch.full((10,), 2.0, dtype=torch.float64)
    assert cpr(SIZES, double).item() == pytest.approx(2 * 0.999)
    assert cmd(SIZES, double).item() == pytest.approx(0.999)


def test_auroc_by_hand() -> None:
    truth = torch.tensor([True, False, True, False, False])
    # Of the six comparisons of a true with another unit, the first true one wins three, the second one and a half.
    assert auroc(torch.tensor([9.0, 1.0, 2.0, 2.0, 3.0]), truth).item() == pytest.approx(4.5 / 6)
    assert auroc(torch.tensor([9.0, 1.0, 8.0, 2.0, 3.0]), truth).item() == 1
    assert auroc(torch.tensor([0.0, 1.0, 0.0, 2.0, 3.0]), truth).item() == 0
    assert auroc(torch.zeros(5), truth).item() == 0.5
    assert auroc(torch.tensor([math.inf, -math.inf, 0.0, 0.0, 1.0]), truth).item() == pytest.approx(4.5 / 6)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=12))
def test_auroc_is_the_share_of_comparisons_won(units: list[tuple[int, bool]]) -> None:
    scores, truth = torch.tensor([float(s) for s, _ in units]), torch.tensor([t for _, t in units])
    if not 0 < int(truth.sum()) < len(units):
        with pytest.raises(SearchError, match="Give a truth with at least one of each"):
            auroc(scores, truth)
        return
    difference = scores[truth][:, None] - scores[~truth]
    assert auroc(scores, truth).item() == pytest.approx(
        ((difference > 0) + 0.5 * (difference == 0)).double().mean().item()
    )


def test_auroc_refuses_what_has_no_rank() -> None:
    with pytest.raises(SearchError, match="1 scores are NaN and cannot be ranked"):
        auroc(torch.tensor([0.0, math.nan]), torch.tensor([True, False]))
    with pytest.raises(SearchError, match="There are 3 scores and 2 truths; expected one truth for each score"):
        auroc(torch.zeros(3), torch.tensor([True, False]))
