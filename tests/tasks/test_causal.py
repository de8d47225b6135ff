"""Causal models: run and interchange, against sums done by hand."""

import pytest
from hypothesis import given, strategies as st

from interpose.errors import TaskError
from interpose.tasks.base import CausalModel, Variable

DIGITS = st.integers(0, 9)
NUMBERS = st.tuples(DIGITS, DIGITS, DIGITS, DIGITS)


@pytest.fixture(scope="module")
def adding() -> CausalModel:
    """Two-digit addition: the carry goes from the ones to the tens."""
    return CausalModel(
        inputs=("tens", "ones", "more_tens", "more_ones"),
        variables={
            "carry": Variable(("ones", "more_ones"), lambda one, other: int(one + other > 9)),
            "digit": Variable(("ones", "more_ones"), lambda one, other: (one + other) % 10),
            "high": Variable(("tens", "more_tens", "carry"), lambda one, other, carry: one + other + carry),
            "total": Variable(("high", "digit"), lambda high, digit: 10 * high + digit),
        },
        output="total",
    )


def number(a: int, b: int, c: int, d: int) -> dict[str, int]:
    return {"tens": a, "ones": b, "more_tens": c, "more_ones": d}


@given(DIGITS, DIGITS, DIGITS, DIGITS)
def test_run_computes_every_variable(adding, a, b, c, d):
    values = adding.run(number(a, b, c, d))
    assert values["total"] == (10 * a + b) + (10 * c + d)
    assert values["carry"] == (b + d) // 10
    assert set(values) == {"tens", "ones", "more_tens", "more_ones", "carry", "digit", "high", "total"}


@given(NUMBERS, NUMBERS)
def test_interchange_takes_one_variable_from_elsewhere(adding, here, there):
    base, source = number(*here), number(*there)
    (a, b, c, d), (_, f, _, h) = here, there
    carried = adding.run_interchange(base, {"carry": source})
    assert carried["total"] == 10 * (a + c + (f + h) // 10) + (b + d) % 10
    both = adding.run_interchange(base, {"carry": source, "digit": base})
    assert both["total"] == carried["total"]
    assert adding.run_interchange(base, {"carry": base}) == adding.run(base)
    assert adding.run_interchange(base, {"high": source, "digit": source})["total"] == adding.run(source)["total"]


def test_a_variable_can_be_set(adding):
    assert adding.run(number(1, 2, 3, 4), {"carry": 1})["total"] == 56


def test_mistakes_are_named(adding):
    with pytest.raises(TaskError, match="needs tens, ones, more_tens, more_ones; missing: more_tens, more_ones"):
        adding.run({"tens": 1, "ones": 2})
    with pytest.raises(TaskError, match="No variable carrot; expected one of carry, digit, high, total"):
        adding.run(number(1, 2, 3, 4), {"carrot": 1})
    with pytest.raises(TaskError, match="No variable tens; expected one of carry"):
        adding.run_interchange(number(1, 2, 3, 4), {"tens": number(1, 2, 3, 4)})
    with pytest.raises(TaskError, match="Variable 'b' is computed from c, not known at that point. Known by then: a"):
        CausalModel(("a",), {"b": Variable(("c",), abs), "c": Variable(("a",), abs)}, "b")
    with pytest.raises(TaskError, match="The output 'z' is no variable; expected one of b"):
        CausalModel(("a",), {"b": Variable(("a",), abs)}, "z")
