import pytest
import torch

from interpose.benchmark.intervals import Bootstrap, estimate, resample
from interpose.errors import SearchError


def test_resampling_is_with_replacement_and_repeats_by_seed() -> None:
    weights = resample(20, 1000, seed=1)
    assert weights.sum(1).allclose(torch.ones(1000, dtype=torch.float64))
    times = weights * 20
    assert times.allclose(times.round())
    # A thing is left out of a resample with probability (1 - 1/20)^20.
    assert float((times == 0).double().mean()) == pytest.approx(0.95**20, abs=0.01)
    assert weights.equal(resample(20, 1000, seed=1))
    assert not weights.equal(resample(20, 1000, seed=2))
    assert resample(5, 10, seed=0, picks=4).mul(4).sum(1).allclose(torch.full((10,), 4.0, dtype=torch.float64))


def test_an_interval_holds_the_middle_of_the_resamples() -> None:
    samples = torch.arange(1001, dtype=torch.float64)
    found = estimate(torch.tensor(500.0), samples, 0.9)
    assert (found.value, found.low, found.high) == pytest.approx((500, 50, 950))
    assert str(found) == "500.000 [50.000, 950.000]"
    assert str(estimate(torch.tensor(-1e-9), samples * 0, 0.9)) == "0.000 [0.000, 0.000]"


def test_faithfulness_divides_means_and_not_examples() -> None:
    full, empty = torch.tensor([4.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 0.0])
    metric = torch.tensor([[[4.0, 1.0, 1.0], [0.0, 1.0, 0.0]]])
    bootstrap = Bootstrap(full, empty)
    found = bootstrap.faithfulness(metric)
    # (2 - 1/3) / (3 - 1/3) = 5/8, where the mean of the examples' own ratios is 4/9.
    assert found.value.tolist() == pytest.approx([5 / 8, 0])
    assert found.samples.shape == (2000, 2)
    assert not found.samples[:, 1].any()


def test_examples_are_resampled_together() -> None:
    # The circuit does exactly half of what each example needs: paired, there is nothing to be unsure of.
    generator = torch.Generator().manual_seed(0)
    empty = torch.randn(30, generator=generator)
    full = empty + 1 + torch.rand(30, generator=generator)
    found = Bootstrap(full, empty).faithfulness(((full + empty) / 2)[None, None])
    assert found.samples.sub(0.5).abs().max() < 1e-6
    assert Bootstrap(full, empty).mean(full).high - Bootstrap(full, empty).mean(full).low > 0.1


def test_draws_of_a_control_widen_its_interval() -> None:
    generator = torch.Generator().manual_seed(0)
    full, empty = 3 + torch.randn(200, generator=generator) / 10, torch.zeros(200)
    draws = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0])[:, None, None].expand(5, 1, 200)
    bootstrap = Bootstrap(full, empty)
    several = estimate(bootstrap.faithfulness(draws).value[0], bootstrap.faithfulness(draws).samples[:, 0])
    mean = draws.mean(0, keepdim=True)
    single = estimate(bootstrap.faithfulness(mean).value[0], bootstrap.faithfulness(mean).samples[:, 0])
    assert several.value == pytest.approx(single.value)
    # The standard error of a mean of these five draws is sqrt(2.5 / 4 / 5) / 3, and 1.96 of it on either side.
    assert several.high - several.low == pytest.approx(2 * 1.96 * 0.3536 / 3, rel=0.15)
    assert single.high - single.low < 0.02


def coverage(examples: int, draws: int, trials: int) -> float:
    """How often the interval holds the true faithfulness of .6 on made-up data with noise over examples and draws."""
    held = 0
    generator = torch.Generator().manual_seed(1)
    for trial in range(trials):
        hard = torch.randn(examples, generator=generator)
        full = 3 + hard + torch.randn(examples, generator=generator) / 2
        empty = -1 + hard / 2 + torch.randn(examples, generator=generator) / 2
        luck = torch.randn(draws, 1, 1, generator=generator) * (draws > 1)
        noise = torch.randn(draws, 1, examples, generator=generator)
        metric = -1 + 0.6 * 4 + hard + noise + luck
        found = Bootstrap(full, empty, resamples=1000, seed=trial).faithfulness(metric)
        interval = estimate(found.value[0], found.samples[:, 0])
        held += interval.low <= 0.6 <= interval.high
    return held / trials


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    assert coverage(examples=64, draws=1, trials=400) == pytest.approx(0.95, abs=0.03)
    assert coverage(examples=64, draws=20, trials=200) == pytest.approx(0.95, abs=0.04)
    # Five draws say little about how far draws spread; the interval is known to be a little narrow then.
    assert 0.82 < coverage(examples=64, draws=5, trials=200) < 0.97


@pytest.mark.parametrize(
    ("full", "empty", "message"),
    [
        ([1.0], [0.0], "An interval needs at least 2 examples, but there is 1"),
        ([1.0, 2.0], [1.0, 2.0], "Faithfulness is not defined"),
        ([5.0, -4.0, 3.0], [0.0, 0.0, 0.0], r"cannot be told apart on these 3 examples: .*differ by 1.333 \["),
    ],
)
def test_a_model_that_does_not_do_the_task_is_refused(full: list[float], empty: list[float], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        Bootstrap(torch.tensor(full), torch.tensor(empty))
