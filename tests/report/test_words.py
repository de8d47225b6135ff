"""The page's sentences say what the numbers say, also when that is bad news."""

from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from interpose.report import Result, story, words

NBSP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.number(0.912), "0.91"),
        (words.number(-0.001), "0.00"),
        (words.number(-0.25), "−0.25"),
        (words.score(0.03125), "+0.0312"),
        (words.score(-0.000021), "−2.1e−05"),
        (words.score(0.0), "0.0000"),
        (words.brief(1.1709), "+1.17"),
        (words.brief(-0.0421), "−0.042"),
        (words.percent(0.001), f"0.1{NBSP}%"),
        (words.percent(1.0), f"100{NBSP}%"),
        (words.percents([0.02, 0.05, 0.1]), f"2, 5 and 10{NBSP}%"),
        (words.listed(["a"]), "a"),
        (words.duration(2.8), f"2.8{NBSP}s"),
        (words.duration(281.4), f"4{NBSP}min 41{NBSP}s"),
        (words.duration(59.9), f"1{NBSP}min 0{NBSP}s"),
        (words.memory(2_314_000_000), f"2.31{NBSP}GB"),
        (words.memory(5_400_000), f"5{NBSP}MB"),
    ],
)
def test_numbers_are_written_for_readers(text: str, expected: str) -> None:
    assert text == expected


@given(st.floats(min_value=-1e6, max_value=1e6))
def test_a_number_is_never_minus_zero_and_reads_back(value: float) -> None:
    text = words.number(value)
    assert text != "−0.00"
    assert abs(float(text.replace("−", "-")) - value) <= 0.00501


def test_the_answer_to_a_claim_that_holds(results: dict[str, Result]) -> None:
    first, second = story.answer(results["holds"])
    shown = results["holds"].shown
    assert first.startswith(
        f"The circuit with 5{NBSP}% of the edges (6,160 of 123,211) recovers 0.91 [0.85,{NBSP}0.97] of the behaviour"
    )
    for name, control in shown.controls.items():
        assert f"{words.interval(control)} ({name})" in first
    assert f"the claim holds: at 2, 5, 10 and 20{NBSP}% of the edges" in second
    rows = enumerate(results["holds"].heads)
    best = max((abs(value), f"{layer}.{head} (") for layer, row in rows for head, value in enumerate(row))
    assert f"The heads that matter most are {best[1]}" in second


def test_the_answer_to_a_claim_that_fails_says_so_first(results: dict[str, Result]) -> None:
    first, second = story.answer(results["fails"])
    assert first.startswith(f"The claim fails: at 2, 5, 10 and 20{NBSP}% of the edges the 95{NBSP}% interval")
    assert "does not lie above those of the uniform and shuffled controls" in first
    assert "candidates only" in second
    assert "holds" not in first + second
    assert story.title(results["fails"]) == "No proven circuit for IOI in SmolLM2-135M-Instruct"


def test_only_the_sizes_that_fail_are_named(make: Callable[..., Result]) -> None:
    data = make(layers=2, heads=2, edges=20).model_dump()
    signed = data["curve"][4]["signed"]
    signed["low"] = -1.0
    data["verdict"] = {
        "holds": False,
        "required": data["verdict"]["required"],
        "sizes": [{**size, "above": size["above"] and i != 4} for i, size in enumerate(data["verdict"]["sizes"])],
    }
    first, _ = story.answer(Result.model_validate(data))
    assert first.startswith(f"The claim fails: at 2{NBSP}% of the edges")
    assert f"(required at 2, 5, 10 and 20{NBSP}%)" in first


@pytest.mark.parametrize(
    ("heads", "says"),
    [
        ((0.0,), "No head matters"),
        ((0.5,), "The head that matters most is 0.0 (+0.50)"),
        ((-0.5,), "The head that matters most, 0.0 (−0.50), works against the answer"),
        ((-0.5, -0.2), "The heads that matter most, 0.0 (−0.50) and 0.1 (−0.20), work against the answer"),
        ((-0.5, 0.2), "The heads that matter most are 0.1 (+0.20) for the answer and 0.0 (−0.50) against it"),
    ],
)
def test_heads_are_named_by_what_they_do(heads: tuple[float, ...], says: str, make: Callable[..., Result]) -> None:
    result = make(layers=1, heads=len(heads), edges=5)
    result = Result.model_validate({**result.model_dump(), "heads": [heads]})
    assert story.answer(result)[1].startswith(says)
