from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import SearchError
from interpose.search.behaviour import behaviour, first_difference
from interpose.tasks.base import Pairs

Make = Callable[..., ip.Model]


def stock(model: ip.Model, tokens: torch.Tensor, mask: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    """The behaviour from the stock network, each prompt by itself and without padding."""
    found = []
    for row in range(len(pairs)):
        with torch.no_grad():
            logits = model.network(tokens[row][mask[row]][None]).logits[0, -1]
        found.append(logits[pairs.answers[row]] - logits[pairs.wrong[row]])
    return torch.stack(found)


def test_the_behaviour_is_the_difference_of_two_logits_after_each_prompt(
    variant: str, make: Make, pairs: Pairs
) -> None:
    model = make(variant)
    for batch_size in (2, 16):
        found = behaviour(model, pairs, batch_size)
        assert list(found) == ["clean", "corrupt"]
        for side, tokens in (("clean", pairs.clean_tokens), ("corrupt", pairs.corrupt_tokens)):
            assert (found[side] - stock(model, tokens, pairs.mask, pairs)).abs().max() < 3e-5


def test_the_first_difference_is_counted_from_the_last_position(even: Pairs) -> None:
    assert first_difference(even) == -5
    assert first_difference(even[1:2]) == -5
    later = replace(even, corrupt_tokens=torch.where(torch.arange(7) < 3, even.clean_tokens, even.corrupt_tokens))
    assert first_difference(later) == -3
    only_last = replace(even, corrupt_tokens=torch.where(torch.arange(7) < 6, even.clean_tokens, even.corrupt_tokens))
    assert first_difference(only_last) == -1


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_padding_is_no_difference(pairs: Pairs) -> None:
    other = torch.where(pairs.mask, pairs.corrupt_tokens, 1)
    assert first_difference(replace(pairs, corrupt_tokens=other)) == first_difference(pairs)


def test_pairs_that_do_not_differ_are_refused(even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        first_difference(replace(even, corrupt_tokens=even.clean_tokens))
    assert str(failure.value) == "No clean prompt differs from its corrupt one, so there is nothing to search for."


@pytest.mark.parametrize(
    ("family", "config"),
    [("opt", {"do_layer_norm_before": False}), ("gemma2", {"final_logit_softcapping": 0.1, "kv_heads": 2})],
)
def test_it_is_that_of_the_logits_also_without_a_last_norm_and_behind_a_cap(
    family: str, config: dict[str, Any], even: Pairs
) -> None:
    torch.manual_seed(0)
    model = ip.build(family, layers=2, heads=4, width=16, neurons=24, vocab=50, pad_token_id=0, **config)
    found = behaviour(model, even)
    rows = torch.arange(len(even))
    for side, batch in (("clean", even.clean_batch()), ("corrupt", even.corrupt_batch())):
        with torch.no_grad():
            logits = model.network(**batch.kwargs).logits[:, -1]
        expected = logits[rows, even.answers] - logits[rows, even.wrong]
        assert (found[side] - expected).abs().max() < 1e-6
        assert expected.abs().min() > 1e-5
