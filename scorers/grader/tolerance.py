"""Compares numbers with a tolerance, for data sets whose own rule it is; nothing else uses it."""

from __future__ import annotations

from fractions import Fraction
from math import isfinite

from scorers.grader.equality import MAX_COSTLY_STEPS
from scorers.grader.numeric import approximate, symbols
from scorers.grader.values import Value

__all__ = ["exact_tolerance", "within_tolerance"]


def exact_tolerance(tolerance: float | None) -> Fraction | None:
    """Return the tolerance as the decimal that was written (0.1 is 1/10), so that the bound itself counts.

    Raises ValueError for anything but a number over 0; None stands for the exact rules.
    """
    if tolerance is None:
        return None
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not number or not isfinite(tolerance) or tolerance <= 0:
        raise ValueError(f"a tolerance is a number over 0, or missing for the exact rules; not {tolerance!r}")
    return Fraction(repr(tolerance))


def within_tolerance(a: Value, b: Value, tolerance: Fraction, max_steps: int = MAX_COSTLY_STEPS) -> bool:
    """Return whether two numbers without different names are at most `tolerance` apart.

    Symmetric. A percentage stands for its value; compared with a number without the sign, it stands
    for the bare number too, as in the exact rules. A value that can't be evaluated is not near.
    """
    if a.name and b.name and a.name != b.name:
        return False
    only_one_percent = a.percent != b.percent
    first, second = (
        _possible_numbers(value, max_steps, bare=only_one_percent and value.percent) for value in (a, b)
    )
    return any(abs(x - y) <= tolerance for x in first for y in second)


def _possible_numbers(value: Value, max_steps: int, *, bare: bool) -> list[Fraction]:
    """Return the numbers that the value may stand for; none if it is not one real number."""
    exact = value.exact
    if value.kind == "number" and exact is None and value.expr is not None and not symbols(value.expr):
        exact = approximate(value.expr, max_steps)
    if value.kind != "number" or exact is None:
        return []
    return [exact, 100 * exact] if bare else [exact]
