"""Gates against their laws: probabilities counted over many draws, and slopes worked out by hand."""

import math
from typing import Any

import pytest
import torch

from interpose.errors import SearchError
from interpose.search.gates import Clamp, HardConcrete, Sigmoid, UniformWindow

DRAWS = 40_000
PARAMETERS = torch.tensor([-2.0, -0.5, 0.0, 1.0, 3.0])


def drawn(gate: Any, count: int = DRAWS, seed: int = 0) -> torch.Tensor:
    """Many masks of each parameter [draw, parameter]."""
    random = torch.Generator().manual_seed(seed)
    if gate.each_pair:
        return gate.mask(PARAMETERS, gate.draw((count, len(PARAMETERS)), random, 0.0))
    many = PARAMETERS.repeat(count)
    return gate.mask(many, gate.draw((1, len(many)), random, 0.0)).reshape(count, -1)


def close(share: torch.Tensor, expected: torch.Tensor) -> None:
    """Shares lie within five standard deviations of their probabilities."""
    assert ((share - expected).abs() <= 5 * (expected * (1 - expected) / DRAWS).sqrt() + 1e-9).all()


def test_the_window_is_open_shut_and_uniform_between_as_often_as_its_law_says() -> None:
    masks, p = drawn(UniformWindow()), torch.sigmoid(PARAMETERS)
    w = p * (1 - p)
    assert ((masks >= 0) & (masks <= 1)).all()
    close((masks == 1).float().mean(0), p - w / 2)
    close((masks == 0).float().mean(0), 1 - p - w / 2)
    inside = (masks > 0) & (masks < 1)
    close(inside.float().mean(0), w)
    for quarter in (0.25, 0.5, 0.75):
        below = ((masks < quarter) & inside).float().mean(0)
        close(below, quarter * w)
    # The mean is p, as the window lies evenly around it.
    assert (masks.mean(0) - p).abs().max() < 0.01


def test_the_slope_of_the_window_is_the_mean_slope_of_the_draws_inside() -> None:
    gate, parameters = UniformWindow(), PARAMETERS.clone().requires_grad_()
    noise = gate.draw((50, len(PARAMETERS)), torch.Generator().manual_seed(1), 0.0)
    masks = gate.mask(parameters, noise)
    (slope,) = torch.autograd.grad((masks**3).sum(1).mean(), parameters)
    masks, p = masks.detach(), torch.sigmoid(PARAMETERS)
    for unit in range(len(PARAMETERS)):
        inside = masks[(masks[:, unit] > 0) & (masks[:, unit] < 1), unit]
        by_hand = float((3 * inside**2).mean() * p[unit] * (1 - p[unit])) if len(inside) else 0.0
        assert float(slope[unit]) == pytest.approx(by_hand, rel=1e-4)


def test_the_slope_of_the_window_is_that_of_the_expected_loss() -> None:
    """For the loss m squared, the mean slope inside the window is 1, so that by the parameter it is p(1 - p)."""
    gate, parameters = UniformWindow(), PARAMETERS.clone().requires_grad_()
    masks = gate.mask(parameters, gate.draw((DRAWS, len(PARAMETERS)), torch.Generator().manual_seed(2), 0.0))
    (slope,) = torch.autograd.grad((masks**2).sum(1).mean(), parameters)
    p = torch.sigmoid(PARAMETERS)
    assert (slope / (p * (1 - p)) - 1).abs().max() < 0.05


def test_a_unit_that_was_never_inside_its_window_has_no_slope() -> None:
    gate, parameters = UniformWindow(), torch.zeros(2, requires_grad=True)
    masks = gate.mask(parameters, {"noise": torch.tensor([[0.01, 0.5], [0.99, 0.5]])})
    assert masks.tolist() == [[1.0, 0.5], [0.0, 0.5]]
    (slope,) = torch.autograd.grad(masks.sum(), parameters)
    assert slope.tolist() == [0.0, 0.5]  # two pairs, each p(1 - p)


def test_hard_concrete_hits_both_ends_as_often_as_its_law_says() -> None:
    gate = HardConcrete()
    masks = drawn(gate)
    assert ((masks >= 0) & (masks <= 1)).all()
    # From -0.1 to 1.1 an end is cut off beyond odds of 11, and noise is logistic.
    edge = 2 / 3 * math.log(11)
    close((masks > 0).float().mean(0), torch.sigmoid(PARAMETERS + edge))
    close((masks == 1).float().mean(0), torch.sigmoid(PARAMETERS - edge))
    assert torch.allclose(gate.size(PARAMETERS), torch.sigmoid(PARAMETERS + edge))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_hard_concrete_begins_as_open_as_it_is_told_where_there_is_no_noise(share: float) -> None:
    gate = HardConcrete(open=share, temperature=1.0)
    mask = gate.mask(torch.tensor([gate.start]), {"noise": torch.zeros(1)})
    assert float(mask) == pytest.approx(share, abs=1e-6)


def test_at_a_lower_temperature_hard_concrete_begins_nearer_to_the_ends() -> None:
    gate = HardConcrete(open=0.9)
    assert gate.start == pytest.approx(math.log(5))  # as published: the odds of 1 / 1.2, whatever the temperature
    assert float(gate.mask(torch.tensor([gate.start]), {"noise": torch.zeros(1)})) == 1


@pytest.mark.parametrize("share", [-0.1, 1.1, 1.5])
def test_hard_concrete_cannot_begin_beyond_its_ends(share: float) -> None:
    with pytest.raises(SearchError) as failure:
        HardConcrete(open=share)
    assert str(failure.value) == (
        "A gate begins between -0.1 and 1.1, the ends of its stretched sigmoid, but here it is "
        f"{share} open. Write for example 0.9."
    )


def test_the_noise_of_hard_concrete_is_logistic_and_never_infinite() -> None:
    noise = HardConcrete().draw((1, DRAWS), torch.Generator().manual_seed(0), 0.0)["noise"]
    assert noise.isfinite().all()
    for at in (-2.0, 0.0, 1.5):
        expected = torch.sigmoid(torch.tensor(at))
        close((noise < at).float().mean(), expected)


def test_a_clamped_parameter_is_the_mask_and_is_put_back() -> None:
    gate = Clamp()
    assert (gate.start, gate.each_pair) == (1.0, False)
    assert gate.project(torch.tensor([-0.5, 0.25, 1.5])).tolist() == [0.0, 0.25, 1.0]
    parameters = torch.tensor([0.25, 1.0])
    assert gate.mask(parameters, {}) is parameters
    assert gate.size(parameters) is parameters


@pytest.mark.parametrize(("progress", "temperature"), [(0.0, 1.0), (0.5, 0.505), (1.0, 0.01)])
def test_a_sigmoid_becomes_steeper(progress: float, temperature: float) -> None:
    gate = Sigmoid(last_temperature=0.01)
    found = gate.mask(PARAMETERS, gate.draw((1, 5), torch.Generator(), progress))
    assert torch.allclose(found, torch.sigmoid(PARAMETERS / temperature), atol=1e-6)
    assert torch.equal(gate.size(PARAMETERS), torch.sigmoid(PARAMETERS))


@pytest.mark.parametrize("gate", [HardConcrete(), UniformWindow()])
def test_chance_comes_from_the_generator_alone(gate: Any) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (drawn(gate, 20, seed) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
