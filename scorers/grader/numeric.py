"""Decides whether two expressions have the same value, where their normal forms differ.

Two constants are unequal when their balls are disjoint, which proves it, and taken as equal
when their balls still overlap at 300 digits. With variables the same is asked at a few fixed
points of either sign (Schwartz-Zippel).
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

from scorers.grader.balls import context, evaluate
from scorers.grader.expressions import Expr

__all__ = ["approximate", "proportional", "same_value", "symbols"]

LOW, HIGH = 50, 300
CONSTANTS = frozenset({"pi", "e", "i"})
_POINTS = (Fraction(7, 9), Fraction(-13, 11), Fraction(29, 17), Fraction(-5, 19), Fraction(37, 23))


def symbols(tree: Expr) -> frozenset[str]:
    """The variables of `tree`, the constants pi, e and i left out."""
    if tree.op == "sym":
        return frozenset() if tree.name in CONSTANTS else frozenset({tree.name})
    found: frozenset[str] = frozenset()
    for arg in tree.args:
        found |= symbols(arg)
    return found


def same_value(a: Expr, b: Expr, effort: int = 8) -> bool | None:
    """Whether a equals b wherever both are defined; None where that could not be settled.

    `effort` bounds the costly steps (roots, powers, functions) of each evaluation.
    """
    names = sorted(symbols(a) | symbols(b))
    if not names:
        return _same_at(a, b, {}, effort)
    met = 0
    for shift in range(len(_POINTS)):
        point = {name: _POINTS[(shift + 2 * i) % len(_POINTS)] + i // 5 for i, name in enumerate(names)}
        same = _same_at(a, b, point, effort, (LOW,) if met else (LOW, HIGH))
        if same is False:
            return False
        met += bool(same)
    return True if met >= 3 else None


def proportional(a: Expr, b: Expr, effort: int = 8) -> bool | None:
    """Whether a = k*b for one number k other than 0, so that a = 0 and b = 0 are one equation."""
    names = sorted(symbols(a) | symbols(b))
    start = {name: _POINTS[(2 * i) % len(_POINTS)] + i // 5 for i, name in enumerate(names)}
    ratio = Expr("*", (_at(a, start), Expr("^", (_at(b, start), Expr("num", value=Fraction(-1))))))
    return same_value(a, Expr("*", (ratio, b)), effort)


def approximate(tree: Expr, effort: int = 8) -> Fraction | None:
    """A real constant to about 40 digits; None where it is none or can't be bounded so well."""
    try:
        real, imaginary = evaluate(tree, LOW, {}, effort)
        with decimal.localcontext(context(LOW)):
            sharp = real.rad <= abs(real.mid) * Decimal("1e-40") and abs(real.mid.adjusted()) < 400
    except (ArithmeticError, RecursionError):
        return None
    return Fraction(real.mid) if sharp and imaginary.exact_zero else None


def _at(tree: Expr, point: Mapping[str, Fraction]) -> Expr:
    if tree.op == "sym" and tree.name in point:
        return Expr("num", value=point[tree.name])
    return Expr(tree.op, tuple(_at(arg, point) for arg in tree.args), tree.name, tree.value, tree.places)


def _same_at(
    a: Expr, b: Expr, point: Mapping[str, Fraction], effort: int, precisions: Sequence[int] = (LOW, HIGH)
) -> bool | None:
    sharp = False
    for digits in precisions:
        try:
            left, right = (evaluate(tree, digits, point, effort) for tree in (a, b))
        except (ArithmeticError, RecursionError):
            return None
        with decimal.localcontext(context(digits)):
            gaps = [abs(x.mid - y.mid) > x.rad + y.rad for x, y in zip(left, right, strict=True)]
            if any(gaps):
                return False
            scale = max(abs(part.mid) for part in (*left, *right))
            error = max(part.rad for part in (*left, *right))
            if scale and abs(scale.adjusted()) > digits // 2:
                continue  # so large or small that the digits looked at say little
            sharp = error <= Decimal(10) ** (-digits // 2) * max(scale, Decimal(10) ** (-digits // 4))
    return True if sharp else None
