from collections.abc import Callable

import pytest
import torch

import interpose as ip
from interpose.mediators import Edges, Heads
from interpose.methods import Random
from interpose.tasks.base import Pairs

Make = Callable[[str], ip.Model]


def test_scores_are_drawn_from_a_standard_normal_distribution(make: Make, even: Pairs) -> None:
    draws = torch.cat([Random(seed=seed).score(make("llama"), even, Edges()).values for seed in range(40)])
    assert len(draws) == 40 * 46
    assert float(draws.mean()) == pytest.approx(0, abs=0.1)
    assert float(draws.std()) == pytest.approx(1, abs=0.1)


def test_another_seed_gives_other_scores_and_another_model_the_same(make: Make, even: Pairs) -> None:
    first = Random().score(make("llama"), even, Heads()).values
    assert not torch.equal(first, Random(seed=1).score(make("llama"), even, Heads()).values)
    assert torch.equal(first, Random().score(make("gpt2"), even, Heads()).values)
