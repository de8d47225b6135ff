"""Attention written out: masks, caps, sinks and biases as the formulas say, for kernels of any family."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from interpose.engine.attention import attention_scores, softmax, tapped
from interpose.errors import RunError

QUERY = torch.randn(2, 4, 3, 8, generator=torch.manual_seed(0))
KEY = torch.randn(2, 2, 5, 8, generator=torch.manual_seed(1))
VALUE = torch.randn(2, 2, 5, 8, generator=torch.manual_seed(2))
SEEN = torch.rand(2, 1, 3, 5, generator=torch.manual_seed(3)) > 0.3
MODULE = SimpleNamespace(is_causal=True, training=False, num_key_value_groups=2)


def by_loops(
    seen: torch.Tensor, cap: float | None = None, bias: torch.Tensor | None = None, scaling: float = 8**-0.5
) -> Any:
    """Scores one by one; query heads 0 and 1 share the first key head."""
    scores = torch.full((2, 4, 3, 5), -float("inf"), dtype=torch.float64)
    for b, h, q, k in torch.cartesian_prod(*(torch.arange(n) for n in scores.shape)).tolist():
        score = float(QUERY[b, h, q].double() @ KEY[b, h // 2, k].double()) * scaling
        score = cap * float(torch.tanh(torch.tensor(score / cap))) if cap is not None else score
        score += 0 if bias is None else float(bias[b, h, q, k])
        if bool(seen.expand(2, 4, 3, 5)[b, h, q, k]):
            scores[b, h, q, k] = score
    return scores.softmax(-1)


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return torch.allclose(found.double(), wanted.nan_to_num(0.0), atol=1e-6)


CAUSAL = torch.ones(3, 5, dtype=torch.bool).tril(2)  # the queries are the last three of five positions
ADDED = torch.zeros(2, 1, 3, 5).masked_fill(~SEEN, torch.finfo(torch.float32).min)
BIAS = torch.randn(2, 4, 3, 5, generator=torch.manual_seed(4))


@pytest.mark.parametrize(
    ("mask", "extra", "wanted"),
    [
        (None, {}, by_loops(CAUSAL)),
        (SEEN, {}, by_loops(SEEN)),
        (ADDED, {}, by_loops(SEEN)),
        (SEEN, {"softcap": 0.7}, by_loops(SEEN, cap=0.7)),
        (SEEN, {"scaling": 0.5}, by_loops(SEEN, scaling=0.5)),
        (SEEN, {"position_bias": BIAS}, by_loops(SEEN, bias=BIAS)),
    ],
    ids=["causal", "boolean mask", "additive mask", "soft cap", "scaling", "position bias"],
)
def test_scores_are_those_of_the_formula(mask: Any, extra: dict[str, Any], wanted: torch.Tensor) -> None:
    scores = attention_scores(MODULE, QUERY, KEY, mask, **extra)
    assert close(softmax(scores, torch.float32, None), wanted)


def test_sinks_take_a_share_that_goes_nowhere() -> None:
    sinks = torch.tensor([0.0, 1.0, -1.0, 3.0])
    scores = attention_scores(MODULE, QUERY, KEY, None)
    pattern = softmax(scores, torch.float32, sinks)
    masses = scores.double().exp()
    wanted = masses / (masses.sum(-1, keepdim=True) + sinks.double().exp().view(1, 4, 1, 1))
    assert close(pattern, wanted)
    assert bool((pattern.sum(-1) < 1).all())


def test_sparse_attention_is_refused() -> None:
    with pytest.raises(RunError, match=r"selects positions \(indices\) has no dense scores; read attn.z instead"):
        attention_scores(MODULE, QUERY, KEY, None, indices=torch.zeros(1))


def test_the_stock_result_is_kept_unless_scores_or_pattern_are_written() -> None:
    def stock(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        return key, None

    seen: list[str] = []

    def read(form: str, value: torch.Tensor) -> tuple[torch.Tensor, bool]:
        seen.append(form)
        return value, False

    assert tapped(read, True)(stock, MODULE, QUERY, KEY, VALUE, SEEN)[0] is KEY
    assert seen == ["query", "key", "value", "scores", "pattern"]

    def halve(form: str, value: torch.Tensor) -> tuple[torch.Tensor, bool]:
        return (value / 2, True) if form == "pattern" else (value, False)

    mixed, pattern = tapped(halve, True)(stock, MODULE, QUERY, KEY, VALUE, SEEN)
    wanted = by_loops(SEEN).nan_to_num(0.0) / 2
    assert close(pattern, wanted)
    assert close(mixed.transpose(1, 2), wanted @ VALUE.double().repeat_interleave(2, 1))


def test_a_row_that_may_see_nothing_attends_to_nothing_under_a_boolean_mask() -> None:
    blind = SEEN.clone()
    blind[1, 0, 2] = False
    patterns: list[torch.Tensor] = []

    def keep(form: str, value: torch.Tensor) -> tuple[torch.Tensor, bool]:
        if form == "pattern":
            patterns.append(value)
        return value, False

    tapped(keep, True)(lambda *_, **__: (QUERY, None), MODULE, QUERY, KEY, VALUE, blind)
    assert float(patterns[0][1, :, 2].abs().max()) == 0
    assert close(patterns[0], by_loops(blind))
