"""The tolerance, for data sets whose own rule it is."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.answers import verify, verify_async
from scorers.grader.parsing import parse_answer
from scorers.grader.tolerance import exact_tolerance, within_tolerance

decimals = st.decimals(-1000, 1000, allow_nan=False, allow_infinity=False, places=4).map(
    lambda number: f"{number:f}"
)
tolerances = st.integers(1, 10**5).map(lambda count: count / 10**4)
texts = st.one_of(
    decimals,
    st.sampled_from(
        ["50%", "1/3", r"\sqrt{2}", r"\pi", "x", "yes", "(1,2)", "x = 3", "oo", "3:4", r"\sqrt{x}"]
    ),
)


@given(decimals, decimals, tolerances)
def test_the_tolerance_is_a_distance_and_the_bound_counts(gold: str, answer: str, tolerance: float) -> None:
    """Two decimals are equal exactly if they are at most the written tolerance apart."""
    apart = abs(Fraction(gold) - Fraction(answer))
    assert verify(rf"\boxed{{{answer}}}", gold, tolerance=tolerance) is (apart <= Fraction(str(tolerance)))


@given(texts, texts, tolerances)
def test_a_tolerance_never_rejects_more(a: str, b: str, tolerance: float) -> None:
    """The tolerance is symmetric, keeps what the exact rules accept, and adds only numbers."""
    reply = rf"\boxed{{{a}}}"
    exact, loose = verify(reply, b), verify(reply, b, tolerance=tolerance)
    assert within_tolerance(parse_answer(a), parse_answer(b), Fraction(tolerance)) is within_tolerance(
        parse_answer(b), parse_answer(a), Fraction(tolerance)
    )
    assert loose is True or loose is exact
    assert exact is not True or loose is True


@given(decimals, decimals, tolerances, tolerances)
def test_more_tolerance_accepts_no_less(gold: str, answer: str, first: float, second: float) -> None:
    """An answer within the smaller tolerance is also within the larger."""
    reply = rf"\boxed{{{answer}}}"
    small, large = sorted((first, second))
    if verify(reply, gold, tolerance=small) is True:
        assert verify(reply, gold, tolerance=large) is True


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("3.3536", "3.35398271374", True),
        ("3.352", "3.35398271374", False),
        (r"\sqrt{2}", "1.414", True),
        ("x = 1.4142", r"\sqrt{2}", True),
        ("y = 1.4142", r"x = \sqrt{2}", False),
        ("50.05%", "0.5", True),
        ("50.0005%", "50", True),
        ("(1.0001, 2)", "(1, 2)", False),
        ("about 3.353 metres", "3.3535", True),
        ("yes", "1", False),
    ],
)
async def test_the_tolerance_applies_to_numbers(answer: str, gold: str, right: bool) -> None:
    """A number counts in any form, also on an event loop; parts of a tuple and words do not."""
    reply = rf"So it is \boxed{{{answer}}}."
    assert verify(reply, gold, tolerance=0.001) is right
    assert await verify_async(reply, gold, tolerance=0.001) is right


@pytest.mark.parametrize("invalid", [0, -0.1, float("nan"), float("inf"), True, "0.1", [0.1]])
async def test_an_invalid_tolerance_is_refused(invalid: Any) -> None:
    """An invalid tolerance is an error before any grading."""
    for grade in (exact_tolerance, lambda value: verify("no answer here, sorry", "1", tolerance=value)):
        with pytest.raises(ValueError, match="a tolerance is a number over 0"):
            grade(invalid)
    with pytest.raises(ValueError, match="a tolerance is a number over 0"):
        await verify_async(r"\boxed{1}", "1", tolerance=invalid)
