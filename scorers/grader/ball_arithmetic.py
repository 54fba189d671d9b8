"""Evaluates an expression in ball arithmetic: a value with a proved bound on its error.

FLINT's `arb` and `acb` do the arithmetic. Source: Johansson, "Arb: efficient arbitrary-precision
midpoint-radius interval arithmetic" (2017). This module adds the grader's rules: which functions
are real only, which root of a negative number counts, and how much work one evaluation may take.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from fractions import Fraction

from flint import acb, arb, ctx

from scorers.grader.expressions import Expr

__all__ = ["Undefined", "evaluate"]

MAX_MULTIPLICATIONS = 64  # a power with a larger exponent is a costly step
MAX_EXPONENT = 10**12
MAX_ANGLE = 1_000_000  # FLINT needs as many more digits of pi as the angle has
MAX_COUNTED = 5_000  # the largest argument of a factorial or binomial coefficient

_PRECISION = threading.Lock()
"""Held while an evaluation runs, because FLINT has one working precision for the whole process.

Another user of FLINT that changes the precision meanwhile can widen a ball, never falsify it.
"""

_CONSTANTS: Mapping[str, Callable[[], arb]] = {"pi": arb.pi, "e": arb.const_e}
_FUNCTIONS: Mapping[str, Callable[[arb], arb]] = {
    "ln": arb.log,
    "sinh": arb.sinh,
    "cosh": arb.cosh,
    "tanh": arb.tanh,
    "arcsin": arb.asin,
    "arccos": arb.acos,
    "arctan": arb.atan,
}
_STEPS: Mapping[str, Callable[[arb], arb]] = {"floor": arb.floor, "ceil": arb.ceil}
_OF_ANGLES: Mapping[str, Callable[[arb], arb]] = {
    "sin": arb.sin,
    "cos": arb.cos,
    "tan": arb.tan,
    "cot": arb.cot,
    "sec": arb.sec,
    "csc": arb.csc,
}


class Undefined(ArithmeticError):
    """The expression has no value here, or none that this arithmetic can bound."""


def evaluate(tree: Expr, digits: int, point: Mapping[str, Fraction], max_steps: int) -> acb:
    """Return the value of `tree` with its variables at `point`, computed to `digits` digits.

    A real value has an imaginary part of exactly 0. Raises Undefined where there is no value,
    where nothing bounds it, or where it takes more than `max_steps` costly steps (roots, powers,
    functions). Safe to call from several threads.
    """
    with _PRECISION:
        precision = ctx.prec
        ctx.dps = digits
        try:
            return _Evaluation(point, max_steps).value(tree)
        finally:
            ctx.prec = precision


class _Evaluation:
    """One evaluation at the current precision; `steps_left` counts its costly steps down."""

    def __init__(self, point: Mapping[str, Fraction], max_steps: int) -> None:
        self.point, self.steps_left = point, max_steps

    def value(self, tree: Expr) -> acb:
        if tree.op == "num":
            return acb(_rational(tree.value))
        if tree.op == "sym":
            return self.symbol(tree.name)
        if tree.op == "^":
            return _finite(self.power(*tree.args))
        if tree.op == "call":
            return _finite(self.call(tree.name, [self.value(arg) for arg in tree.args]))
        if tree.op not in ("+", "*"):
            raise Undefined(tree.op)
        total = self.value(tree.args[0])
        for arg in tree.args[1:]:
            value = self.value(arg)
            total = total + value if tree.op == "+" else total * value
        return total

    def symbol(self, name: str) -> acb:
        if name == "i":
            return acb(0, 1)
        if name in _CONSTANTS:
            return acb(_CONSTANTS[name]())
        if name not in self.point:
            raise Undefined(name)
        return acb(_rational(self.point[name]))

    def spend(self) -> None:
        """Count one costly step; raises Undefined where none is left."""
        self.steps_left -= 1
        if self.steps_left < 0:
            raise Undefined("too much work")

    def power(self, base: Expr, exponent: Expr) -> acb:
        value = self.value(base)
        whole = _whole(exponent)
        if whole is not None and abs(whole) <= MAX_MULTIPLICATIONS:
            return value**whole
        self.spend()
        if whole is not None:
            return acb(_real(value) ** whole)
        index = _root_index(exponent)
        if index == 2:
            return _square_root(_real(value))
        if index is not None and index % 2 and _real(value) < 0:
            return acb(-((-_real(value)) ** _real(self.value(exponent))))
        if base == _E:
            return _exp(self.value(exponent))
        return acb(_real(value) ** _real(self.value(exponent)))

    def call(self, name: str, args: list[acb]) -> acb:
        self.spend()
        if name == "degrees":
            return args[0]
        if name == "percent":
            return args[0] / 100
        if name == "exp":
            return _exp(args[0])
        if name == "abs":
            return acb(abs(args[0]))
        return acb(_real_call(name, [_real(arg) for arg in args]))


_E = Expr("sym", name="e")


def _rational(value: Fraction) -> arb:
    """Return the ball of a fraction; dividing costs less than reducing a fraction of FLINT's own."""
    numerator = arb(value.numerator)
    return +numerator if value.denominator == 1 else numerator / value.denominator


def _finite(value: acb) -> acb:
    if not value.is_finite():
        raise Undefined("no value, or no bound on it")
    return value


def _real(value: acb) -> arb:
    if not value.imag.is_zero():
        raise Undefined("complex")
    return value.real


def _square_root(x: arb) -> acb:
    return acb(0, (-x).sqrt()) if x < 0 else acb(x.sqrt())


def _real_call(name: str, args: list[arb]) -> arb:
    """Return a function of real numbers; it may be infinite or unbounded."""
    x = args[0]
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](x)
    if name in _OF_ANGLES:
        return _OF_ANGLES[name](_angle(x))
    if name in _STEPS:
        step = _STEPS[name](x)
        if not step.is_exact():
            raise Undefined("on a step")
        return step
    if name == "factorial":
        return arb.fac_ui(_small_integer(x))
    if name == "binomial":
        return arb.bin_uiui(_small_integer(x), _small_integer(args[1]))
    raise Undefined(name)


def _exp(value: acb) -> acb:
    _angle(value.imag)
    return value.exp()


def _angle(x: arb) -> arb:
    if not abs(x) <= MAX_ANGLE:
        raise Undefined("too large an angle")
    return x


def _small_integer(x: arb) -> int:
    """Return a small whole number as one."""
    if not (x.is_integer() and 0 <= x <= MAX_COUNTED):
        raise Undefined("not a small whole number")
    return int(x.fmpz())


def _whole(tree: Expr) -> int | None:
    """Return an exponent that is written as a whole number, else None."""
    if tree.op == "num" and tree.value.denominator == 1:
        return int(tree.value) if abs(tree.value) < MAX_EXPONENT else None
    if tree.op == "*" and len(tree.args) == 2 and tree.args[0].op == "num" and tree.args[0].value == -1:
        inner = _whole(tree.args[1])
        return None if inner is None else -inner
    return None


def _root_index(tree: Expr) -> int | None:
    """Return n where an exponent is written as 1/n, else None."""
    if tree.op == "num" and tree.value.numerator == 1:
        return tree.value.denominator
    if tree.op == "*" and len(tree.args) == 2 and tree.args[0].op == "num" and tree.args[0].value == 1:
        return _root_index(tree.args[1])
    if tree.op == "^" and _whole(tree.args[1]) == -1:
        return _whole(tree.args[0])
    return None
