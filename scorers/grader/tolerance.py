"""The rule of data sets that accept any number near enough to theirs; nothing else is graded by it."""

from __future__ import annotations

from fractions import Fraction
from math import isfinite

from scorers.grader.equality import MAX_COSTLY_STEPS
from scorers.grader.numeric import approximate, symbols
from scorers.grader.values import Value

__all__ = ["exact_tolerance", "within_tolerance"]


def exact_tolerance(tolerance: float | None) -> Fraction | None:
    """The tolerance as the decimal it was written as (0.1 is 1/10), for the bound itself still counts.

    Raises ValueError for what is no number over 0: exactness is to state none.
    """
    if tolerance is None:
        return None
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not number or not isfinite(tolerance) or tolerance <= 0:
        raise ValueError(
            f"a tolerance is a number over 0, or left out for the exact rules; not {tolerance!r}"
        )
    return Fraction(repr(tolerance))


def within_tolerance(a: Value, b: Value, tolerance: Fraction, effort: int = MAX_COSTLY_STEPS) -> bool:
    """Whether both are one number each, assigned to no two names, and at most `tolerance` apart.

    Symmetric. A percentage stands for its value and, beside a number without the sign, for
    the bare number too, as in the exact rules. What can't be evaluated is not near.
    """
    if a.name and b.name and a.name != b.name:
        return False
    mixed = a.percent != b.percent
    first, second = (_possible_numbers(value, effort, bare=mixed and value.percent) for value in (a, b))
    return any(abs(x - y) <= tolerance for x in first for y in second)


def _possible_numbers(value: Value, effort: int, *, bare: bool) -> list[Fraction]:
    """What the value may stand for; nothing where it is not one real number."""
    exact = value.exact
    if value.kind == "number" and exact is None and value.expr is not None and not symbols(value.expr):
        exact = approximate(value.expr, effort)
    if value.kind != "number" or exact is None:
        return []
    return [exact, 100 * exact] if bare else [exact]
