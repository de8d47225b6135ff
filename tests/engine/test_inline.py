"""Attention written out in a forward, found however it is spelled."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from interpose.engine.inline import InlineTap

QUERY = torch.randn(2, 4, 3, 8, generator=torch.manual_seed(0))
KEY = torch.randn(2, 4, 5, 8, generator=torch.manual_seed(1))
VALUE = torch.randn(2, 4, 5, 8, generator=torch.manual_seed(2))
SEEN = torch.ones(3, 5, dtype=torch.bool).tril(2)
ADDED = torch.zeros(3, 5).masked_fill(~SEEN, torch.finfo(torch.float32).min)
WEIGHT = torch.randn(8, 8, generator=torch.manual_seed(3))
LIKE = torch.zeros(2, 3, 32)
functional = torch.nn.functional


def flat(x: Tensor) -> Tensor:
    return x.reshape(-1, *x.shape[2:])


def by_operators() -> Tensor:
    scores = QUERY @ KEY.transpose(-1, -2) * 8**-0.5 + ADDED
    return scores.softmax(-1) @ VALUE


def by_functions() -> Tensor:
    scores = torch.matmul(QUERY, KEY.mT) / 8**0.5
    pattern = torch.softmax(input=scores + ADDED, dim=-1)
    return torch.matmul(pattern, other=VALUE)


def folded() -> Tensor:
    added = ADDED.expand(8, 3, 5)
    scores = added.baddbmm(batch1=flat(QUERY), batch2=flat(KEY).transpose(1, 2), beta=1.0, alpha=8**-0.5)
    pattern = functional.softmax(scores.view(2, 4, 3, 5), dim=-1, dtype=torch.float32)
    return torch.bmm(pattern.view(8, 3, 5), flat(VALUE)).view(2, 4, 3, 8)


def by_added_product() -> Tensor:
    scores = torch.baddbmm(ADDED.expand(8, 3, 5), flat(QUERY), flat(KEY).transpose(1, 2), alpha=8**-0.5)
    return flat(scores).view(8, 3, 5).softmax(dim=-1).bmm(flat(VALUE)).view(2, 4, 3, 8)


def by_the_kernel() -> Tensor:
    return functional.scaled_dot_product_attention(QUERY, KEY, VALUE, attn_mask=SEEN)


def by_the_kernel_without_names() -> Tensor:
    return functional.scaled_dot_product_attention(QUERY, KEY, VALUE, ADDED, 0.0, False)


def beside_products_with_weights() -> Tensor:
    for x in (QUERY, KEY, VALUE):
        _ = x @ WEIGHT.T  # as a projection does
    return by_operators() @ torch.eye(8)


SPELLINGS = [
    by_operators,
    by_functions,
    folded,
    by_added_product,
    by_the_kernel,
    by_the_kernel_without_names,
    beside_products_with_weights,
]


@pytest.fixture(params=SPELLINGS, ids=lambda spelling: spelling.__name__)
def spelled(request: pytest.FixtureRequest) -> Callable[[], Tensor]:
    return request.param


def watched(spelled: Callable[[], Tensor], changes: dict[str, Callable[[Tensor], Tensor]]) -> tuple[dict, Tensor]:
    """What is found at each site, and the result, with some sites changed."""
    found: dict[str, Tensor] = {}

    def tap(name: str, value: Tensor) -> tuple[Tensor, bool]:
        found[name] = value
        return (changes[name](value), True) if name in changes else (value, False)

    with InlineTap(tap, True, LIKE, lambda _: 0, lambda: False):
        mixed = spelled()
    return found, mixed


def test_the_five_sites_are_found_and_no_bit_is_changed(spelled: Callable[[], Tensor]) -> None:
    found, mixed = watched(spelled, {})
    assert torch.equal(mixed, spelled())
    assert list(found) in (
        ["query", "key", "scores", "pattern", "value"],
        ["query", "key", "value", "scores", "pattern"],
    )
    assert all(torch.equal(found[name], x) for name, x in (("query", QUERY), ("key", KEY), ("value", VALUE)))
    scores = torch.einsum("bhpd,bhqd->bhpq", QUERY, KEY) * 8**-0.5
    shown = found["scores"].view(2, 4, 3, 5)
    torch.testing.assert_close(shown[:, :, SEEN], scores[:, :, SEEN])
    pattern = scores.masked_fill(~SEEN, -1e9).softmax(-1)
    torch.testing.assert_close(found["pattern"].view(2, 4, 3, 5), pattern)


@pytest.mark.parametrize("name", ["query", "key", "value", "scores", "pattern"])
def test_what_is_written_goes_on(spelled: Callable[[], Tensor], name: str) -> None:
    found, _ = watched(spelled, {})
    new = torch.randn(found[name].shape, generator=torch.manual_seed(9))
    _, mixed = watched(spelled, {name: lambda _: new})
    at = {"query": QUERY, "key": KEY, "value": VALUE, name: new}
    scores = torch.einsum("bhpd,bhqd->bhpq", at["query"], at["key"]) * 8**-0.5
    scores = at["scores"].view(2, 4, 3, 5) if name == "scores" else scores.masked_fill(~SEEN, -1e9)
    pattern = at["pattern"].view(2, 4, 3, 5) if name == "pattern" else scores.softmax(-1)
    torch.testing.assert_close(mixed, pattern @ at["value"])


def test_nothing_is_taken_while_another_program_runs() -> None:
    def tap(name: str, value: Tensor) -> tuple[Tensor, bool]:
        raise AssertionError(name, value)

    with InlineTap(tap, True, LIKE, lambda _: 0, lambda: True):
        mixed = by_operators()
    assert torch.equal(mixed, by_operators())


def test_repeated_keys_are_shown_once_and_written_for_all_that_share_them() -> None:
    key, value = (x[:, :2].repeat_interleave(2, 1) for x in (KEY, VALUE))
    seen: list[Tensor] = []

    def attention() -> Tensor:
        return (QUERY @ key.mT).softmax(-1) @ value

    def tap(name: str, found: Tensor) -> tuple[Tensor, bool]:
        if name != "value":
            return found, False
        seen.append(found)
        return -found, True

    with InlineTap(tap, True, LIKE, lambda name: 2 if name in ("key", "value") else 4, lambda: False):
        mixed = attention()
    assert torch.equal(seen[0], VALUE[:, :2])
    assert torch.equal(mixed, -attention())


def test_a_product_in_another_type_is_shown_in_the_module_s_own() -> None:
    query, key, value = (x.bfloat16() for x in (QUERY, KEY, VALUE))

    def attention() -> Tensor:
        return (query.float() @ key.float().mT).softmax(-1).to(value.dtype) @ value

    found, types = {}, []

    def tap(name: str, x: Tensor) -> tuple[Tensor, bool]:
        found[name] = x
        types.append(x.dtype)
        return (x.clone(), True) if name in ("query", "key", "pattern") else (x, False)

    with InlineTap(tap, True, LIKE.bfloat16(), lambda _: 0, lambda: False):
        mixed = attention()
    assert torch.equal(mixed, attention())
    assert torch.equal(found["query"], query)
    assert found["scores"].dtype == torch.float32
    assert all(x.dtype == torch.bfloat16 for name, x in found.items() if name != "scores")
