"""The tolerance of data sets whose own rule is one."""

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
def test_it_is_the_distance_and_the_bound_counts(gold: str, answer: str, tolerance: float) -> None:
    """Two decimals are one just where they lie at most the tolerance apart, as it was written."""
    apart = abs(Fraction(gold) - Fraction(answer))
    assert verify(rf"\boxed{{{answer}}}", gold, tolerance=tolerance) is (apart <= Fraction(str(tolerance)))


@given(texts, texts, tolerances)
def test_it_never_takes_away(a: str, b: str, tolerance: float) -> None:
    """Symmetric, and what is right by the exact rules stays right; only a number gains anything."""
    reply = rf"\boxed{{{a}}}"
    exact, loose = verify(reply, b), verify(reply, b, tolerance=tolerance)
    assert within_tolerance(parse_answer(a), parse_answer(b), Fraction(tolerance)) is within_tolerance(
        parse_answer(b), parse_answer(a), Fraction(tolerance)
    )
    assert loose is True or loose is exact
    assert exact is not True or loose is True


@given(decimals, decimals, tolerances, tolerances)
def test_more_tolerance_accepts_no_less(gold: str, answer: str, one: float, other: float) -> None:
    """What is right within the smaller of two is right within the larger."""
    reply = rf"\boxed{{{answer}}}"
    small, large = sorted((one, other))
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
async def test_what_it_applies_to(answer: str, gold: str, right: bool) -> None:
    """One number, however it is written, also on an event loop; never the parts of a tuple, nor words."""
    reply = rf"So it is \boxed{{{answer}}}."
    assert verify(reply, gold, tolerance=0.001) is right
    assert await verify_async(reply, gold, tolerance=0.001) is right


@pytest.mark.parametrize("odd", [0, -0.1, float("nan"), float("inf"), True, "0.1", [0.1]])
async def test_an_odd_tolerance_is_refused(odd: Any) -> None:
    """Before anything is graded, in words that say what one is."""
    for grade in (exact_tolerance, lambda value: verify("no answer here, sorry", "1", tolerance=value)):
        with pytest.raises(ValueError, match="a tolerance is a number over 0"):
            grade(odd)
    with pytest.raises(ValueError, match="a tolerance is a number over 0"):
        await verify_async(r"\boxed{1}", "1", tolerance=odd)
