"""The loop of an optimiser, on functions whose least value is known."""

import pytest
import torch

from interpose.errors import SearchError
from interpose.search.progress import watching
from interpose.search.training import Optimiser, draws, train

AIM = torch.tensor([0.3, -0.5, 2.0])


def fitted(optimiser: Optimiser, seen: list[torch.Tensor] | None = None) -> torch.Tensor:
    """Parameters fitted to be near AIM, and kept between 0 and 1."""

    def slope(step: int, parameters: torch.Tensor) -> torch.Tensor:
        if seen is not None:
            seen.append(parameters.clone())
        return 2 * (parameters - AIM)

    return train(torch.ones(3), slope, optimiser, lambda x: x.clamp(0, 1), lambda x: x > 0.5)


def test_parameters_reach_the_nearest_allowed_point_and_never_leave_what_is_allowed() -> None:
    seen: list[torch.Tensor] = []
    found = fitted(Optimiser(lr=0.05, steps=300), seen)
    assert (found - torch.tensor([0.3, 0.0, 1.0])).abs().max() < 0.01
    assert len(seen) == 300
    assert all(((x >= 0) & (x <= 1)).all() for x in seen)
    assert not found.requires_grad


def test_the_first_step_of_adam_is_as_long_as_the_learning_rate() -> None:
    found = train(torch.zeros(3), lambda step, x: x - AIM, Optimiser(lr=0.1, steps=1), lambda x: x, lambda x: x > 0)
    assert found.tolist() == pytest.approx([0.1, -0.1, 0.1], abs=1e-6)


@pytest.mark.parametrize("decoupled", [False, True])
def test_it_is_the_optimiser_of_torch(decoupled: bool) -> None:
    settings = {"lr": 0.03, "betas": (0.8, 0.95), "weight_decay": 0.1}
    own = torch.nn.Parameter(torch.ones(3))
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    moving = kind([own], **settings)
    for step in range(7):
        moving.param_groups[0]["lr"] = 0.03 * 0.5 ** (step // 2)
        moving.zero_grad()
        ((own - AIM) ** 2).sum().backward()
        torch.nn.utils.clip_grad_norm_([own], 0.7)
        moving.step()
    optimiser = Optimiser(steps=7, decoupled=decoupled, clip=0.7, every=2, factor=0.5, **settings)
    found = train(torch.ones(3), lambda step, x: 2 * (x - AIM), optimiser, lambda x: x, lambda x: x > 0)
    assert torch.allclose(found, own.detach(), atol=1e-6)


def test_it_ends_when_what_is_decided_has_changed_once_and_then_stays() -> None:
    seen: list[torch.Tensor] = []
    fitted(Optimiser(lr=0.05, steps=300, patience=5), seen)
    decided = [(x > 0.5).tolist() for x in seen]
    assert decided[0] == [True, True, True]
    assert decided[-5:] == [[False, False, True]] * 5
    assert decided[-6] != decided[-5]
    assert 5 < len(seen) < 60
    still: list[torch.Tensor] = []
    fitted(Optimiser(lr=1e-6, steps=20, patience=5), still)
    assert len(still) == 20  # nothing has changed yet


def test_whoever_watches_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    with watching(lambda *args: told.append(args)):
        fitted(Optimiser(steps=3))
    assert told == [("training", done, 3) for done in range(4)]


def test_the_start_is_left_as_it_was() -> None:
    start = torch.zeros(3)
    train(start, lambda step, x: x - AIM, Optimiser(steps=2), lambda x: x, lambda x: x > 0)
    assert start.tolist() == [0, 0, 0]


def test_rows_come_once_each_before_any_comes_again() -> None:
    rows = draws(7, 3, torch.Generator().manual_seed(0))
    seen = torch.cat([next(rows) for _ in range(14)])
    for start in range(0, 42, 7):
        assert sorted(seen[start : start + 7].tolist()) == list(range(7))
    assert not torch.equal(seen[:7], seen[7:14])
    assert sorted(next(draws(2, 6, torch.Generator())).tolist()) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"steps": 0}, "Training needs at least one step, but steps is 0."),
        ({"lr": 0.0}, "Training needs a learning rate above 0, but it is 0.0."),
        ({"clip": 0.0}, "Slopes are clipped to a norm above 0, but clip is 0.0. Write None for no limit."),
        ({"patience": -1}, "A number of steps is 0 or more, but every is 0 and patience is -1."),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, float], said: str) -> None:
    with pytest.raises(SearchError) as failure:
        Optimiser(**setting)  # type: ignore[arg-type]
    assert str(failure.value) == said


def test_a_step_needs_a_row() -> None:
    with pytest.raises(SearchError) as failure:
        next(draws(3, 0, torch.Generator()))
    assert str(failure.value) == "A step needs at least one pair, but pairs_per_step is 0."
