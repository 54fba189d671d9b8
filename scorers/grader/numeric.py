"""Decides whether two expressions whose normal forms differ have the same value.

Disjoint balls prove that two constants differ. Balls that still overlap at 300 digits count as
equal. Expressions with variables are compared at a few fixed points of either sign
(Schwartz-Zippel).
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping, Sequence
from fractions import Fraction

from flint import arb

from scorers.grader.ball_arithmetic import evaluate
from scorers.grader.expressions import Expr

__all__ = ["approximate", "proportional", "same_value", "symbols"]

LOW, HIGH = 50, 300
CONSTANTS = frozenset({"pi", "e", "i"})
_FORTY_DIGITS = decimal.Context(prec=40)
_LEAST_APPROXIMATE, _MOST_APPROXIMATE = arb("1e-400"), arb("1e400")
_POINTS = (Fraction(7, 9), Fraction(-13, 11), Fraction(29, 17), Fraction(-5, 19), Fraction(37, 23))


def symbols(tree: Expr) -> frozenset[str]:
    """Return the variables of `tree`, without the constants pi, e and i."""
    if tree.op == "sym":
        return frozenset() if tree.name in CONSTANTS else frozenset({tree.name})
    return frozenset().union(*(symbols(arg) for arg in tree.args))


def same_value(a: Expr, b: Expr, max_steps: int = 8) -> bool | None:
    """Return whether a equals b wherever both are defined; None where that stays open.

    `max_steps` bounds the costly steps (roots, powers, functions) of each evaluation.
    """
    names = sorted(symbols(a) | symbols(b))
    if not names:
        return _same_at(a, b, {}, max_steps)
    equal_points = 0
    for shift in range(len(_POINTS)):
        point = {name: _POINTS[(shift + 2 * i) % len(_POINTS)] + i // 5 for i, name in enumerate(names)}
        same = _same_at(a, b, point, max_steps, (LOW,) if equal_points else (LOW, HIGH))
        if same is False:
            return False
        equal_points += bool(same)
    return True if equal_points >= 3 else None


def proportional(a: Expr, b: Expr, max_steps: int = 8) -> bool | None:
    """Return whether a = k*b for one number k other than 0; then a = 0 and b = 0 are one equation."""
    names = sorted(symbols(a) | symbols(b))
    start = {name: _POINTS[(2 * i) % len(_POINTS)] + i // 5 for i, name in enumerate(names)}
    ratio = Expr("*", (_at(a, start), Expr("^", (_at(b, start), Expr("num", value=Fraction(-1))))))
    return same_value(a, Expr("*", (ratio, b)), max_steps)


def approximate(tree: Expr, max_steps: int = 8) -> Fraction | None:
    """Return a real constant to 40 digits; None where it is none or nothing bounds it so well.

    Rounding to 40 decimal digits makes a value that is a short decimal come out as just that.
    """
    try:
        value = evaluate(tree, LOW, {}, max_steps)
    except (ArithmeticError, RecursionError):
        return None
    middle, radius = value.real.mid(), value.real.rad()
    if not (value.imag.is_zero() and radius <= abs(middle) * 1e-40):
        return None
    if not middle.is_zero() and not _LEAST_APPROXIMATE < abs(middle) < _MOST_APPROXIMATE:
        return None
    digits, _, exponent = middle.mid_rad_10exp(LOW)
    return Fraction(_FORTY_DIGITS.create_decimal(f"{digits}e{exponent}"))


def _at(tree: Expr, point: Mapping[str, Fraction]) -> Expr:
    if tree.op == "sym" and tree.name in point:
        return Expr("num", value=point[tree.name])
    return Expr(tree.op, tuple(_at(arg, point) for arg in tree.args), tree.name, tree.value, tree.places)


def _same_at(
    a: Expr, b: Expr, point: Mapping[str, Fraction], max_steps: int, precisions: Sequence[int] = (LOW, HIGH)
) -> bool | None:
    sharp, zero_shows = False, True
    for digits in precisions:
        try:
            left, right = (evaluate(tree, digits, point, max_steps) for tree in (a, b))
        except (ArithmeticError, RecursionError):
            return None
        if not left.overlaps(right):
            return False
        balls = (left.real, left.imag, right.real, right.imag)
        scale = max(abs(ball.mid()) for ball in balls)
        error = max(ball.rad() for ball in balls)
        if left.contains(0) and right.contains(0):
            zero_shows = zero_shows and _zero_shows(error, digits)
            sharp = zero_shows
        else:
            sharp = _number_shows(scale, digits)
        sharp = sharp and error <= 10.0 ** -(digits // 2) * max(float(scale), 10.0 ** -(digits // 4))
    return True if sharp else None


def _number_shows(scale: arb, digits: int) -> bool:
    """Return whether a number is neither too large nor too small for `digits` digits to describe it."""
    half = digits // 2
    return bool(10.0**-half <= scale < 10.0 ** (half + 1))


def _zero_shows(error: arb, digits: int) -> bool:
    """Return whether a sum that may be 0 has terms from 10^-75 to 10^75, judged by their error.

    Larger terms hide a small sum. A smaller factor hides the error itself.
    """
    return error.is_zero() or bool(1e-75 <= error * arb(10) ** digits <= 1e75)
