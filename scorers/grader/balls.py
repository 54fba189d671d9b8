"""Ball arithmetic: the value of an expression with a bound on its error, to any number of digits.

Source: Johansson, "Arb: efficient arbitrary-precision midpoint-radius interval arithmetic" (2017).
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from scorers.grader.expressions import Expr

__all__ = ["Ball", "Complex", "Undefined", "context", "evaluate"]

_ZERO = Decimal(0)

Complex = tuple["Ball", "Ball"]


class Undefined(ArithmeticError):
    """No value here, or none that this arithmetic can bound."""


class Ball:
    """The real numbers within `rad` of `mid`."""

    __slots__ = ("mid", "rad")

    def __init__(self, mid: Decimal, rad: Decimal = _ZERO) -> None:
        if not (mid.is_finite() and rad.is_finite()):
            raise Undefined("overflow")
        self.mid, self.rad = mid, rad

    def contains_zero(self) -> bool:
        """Whether 0 is among them."""
        return abs(self.mid) <= self.rad

    @property
    def exact_zero(self) -> bool:
        """Whether it is 0 and nothing else."""
        return not self.mid and not self.rad


def context(digits: int) -> decimal.Context:
    """Decimal arithmetic to `digits` digits that raises rather than return NaN or infinity."""
    traps = [decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow]
    return decimal.Context(prec=digits, Emin=-999_999_999, Emax=999_999_999, traps=traps)


def evaluate(tree: Expr, digits: int, point: Mapping[str, Fraction], effort: int) -> Complex:
    """The real and imaginary part of `tree` with its variables at `point`.

    Raises ArithmeticError where there is no value, where it can't be bounded, or where it
    would take more than `effort` costly steps (roots, powers, functions).
    """
    return _Evaluation(digits, point, effort).of(tree)


class _Evaluation:
    def __init__(self, digits: int, point: Mapping[str, Fraction], effort: int) -> None:
        self.digits, self.point, self.effort = digits, point, effort
        self.unit = Decimal(10) ** (1 - digits)

    def of(self, tree: Expr) -> Complex:
        """The value of `tree` as real and imaginary ball."""
        with decimal.localcontext(context(self.digits)):
            return self.value(tree)

    def value(self, tree: Expr) -> Complex:
        if tree.op == "num":
            return self.real(self.fraction(tree.value))
        if tree.op == "sym":
            return self.symbol(tree.name)
        if tree.op == "call":
            return self.call(tree.name, [self.value(arg) for arg in tree.args])
        if tree.op == "^":
            return self.power(*tree.args)
        values = [self.value(arg) for arg in tree.args]
        if tree.op not in ("+", "*"):
            raise Undefined(tree.op)
        total = values[0]
        for value in values[1:]:
            if tree.op == "+":
                total = self.add(total[0], value[0]), self.add(total[1], value[1])
            else:
                total = self.times(total, value)
        return total

    def real(self, ball: Ball) -> Complex:
        return ball, Ball(_ZERO)

    def rounded(self, mid: Decimal, rad: Decimal) -> Ball:
        return Ball(mid, rad + abs(mid) * self.unit)

    def fraction(self, value: Fraction) -> Ball:
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        if value.denominator == 1 and bits < self.digits * 3:
            return Ball(Decimal(value.numerator))
        mid = self.leading(value.numerator) / self.leading(value.denominator)
        return self.rounded(mid, abs(mid) * self.unit)

    def leading(self, number: int) -> Decimal:
        """`number` to more digits than asked for; turning all of a huge one to decimal is slow."""
        shift = max(0, number.bit_length() - 4 * self.digits - 64)
        return Decimal(number >> shift) * Decimal(2) ** shift

    def symbol(self, name: str) -> Complex:
        if name == "i":
            return Ball(_ZERO), Ball(Decimal(1))
        if name == "pi":
            return self.real(self.rounded(_pi(self.digits), _ZERO))
        if name == "e":
            return self.real(self.rounded(Decimal(1).exp(), _ZERO))
        if name not in self.point:
            raise Undefined(name)
        return self.real(self.fraction(self.point[name]))

    def add(self, a: Ball, b: Ball) -> Ball:
        return self.rounded(a.mid + b.mid, a.rad + b.rad)

    def minus(self, a: Ball) -> Ball:
        return Ball(-a.mid, a.rad)

    def product(self, a: Ball, b: Ball) -> Ball:
        if a.exact_zero or b.exact_zero:
            return Ball(_ZERO)
        return self.rounded(a.mid * b.mid, abs(a.mid) * b.rad + abs(b.mid) * a.rad + a.rad * b.rad)

    def times(self, a: Complex, b: Complex) -> Complex:
        if a[1].exact_zero and b[1].exact_zero:
            return self.real(self.product(a[0], b[0]))
        re = self.add(self.product(a[0], b[0]), self.minus(self.product(a[1], b[1])))
        return re, self.add(self.product(a[0], b[1]), self.product(a[1], b[0]))

    def inverse(self, a: Ball) -> Ball:
        if a.contains_zero():
            raise Undefined("division by zero")
        return self.rounded(1 / a.mid, a.rad / (abs(a.mid) * (abs(a.mid) - a.rad)))

    def reciprocal(self, a: Complex) -> Complex:
        if a[1].exact_zero:
            return self.real(self.inverse(a[0]))
        size = self.inverse(self.add(self.product(a[0], a[0]), self.product(a[1], a[1])))
        return self.product(a[0], size), self.minus(self.product(a[1], size))

    def spend(self) -> None:
        self.effort -= 1
        if self.effort < 0:
            raise Undefined("too much work")

    def power(self, base: Expr, exponent: Expr) -> Complex:
        value = self.value(base)
        whole = _whole(exponent)
        if whole is not None:
            if abs(whole) > 64:
                self.spend()
                return self.large_power(value, whole)
            result = self.real(Ball(Decimal(1)))
            for _ in range(abs(whole)):
                result = self.times(result, value)
            return self.reciprocal(result) if whole < 0 else result
        self.spend()
        index = _root_index(exponent)
        if value[1].exact_zero and index == 2 and value[0].mid < -value[0].rad:
            return Ball(_ZERO), self.sqrt(self.minus(value[0]))
        if index == 2:
            return self.real(self.sqrt(_only_real(value)))
        real = _only_real(value)
        if index is not None and index % 2 and real.mid < -real.rad:
            positive = self.power_real(self.minus(real), _only_real(self.value(exponent)))
            return self.real(self.minus(positive))
        if base.op == "sym" and base.name == "e":
            return self.exp(self.value(exponent))
        return self.real(self.power_real(real, _only_real(self.value(exponent))))

    def large_power(self, value: Complex, whole: int) -> Complex:
        real = _only_real(value)
        result = self.power_real(Ball(abs(real.mid), real.rad), self.fraction(Fraction(whole)))
        return self.real(self.minus(result) if real.mid < 0 and whole % 2 else result)

    def power_real(self, base: Ball, exponent: Ball) -> Ball:
        if base.exact_zero and exponent.mid > exponent.rad:
            return base
        return self.exp_real(self.product(exponent, self.ln(base)))

    def sqrt(self, a: Ball) -> Ball:
        if a.exact_zero:
            return a
        if a.mid - a.rad <= 0:
            raise Undefined("the root of what may be 0 or less")
        return self.rounded(a.mid.sqrt(), a.rad / (a.mid - a.rad).sqrt())

    def exp_real(self, a: Ball) -> Ball:
        if a.rad > Decimal("0.5") or abs(a.mid) > 1_000_000_000:
            raise Undefined("too large an exponent")
        mid = a.mid.exp()
        return self.rounded(mid, 2 * a.rad * mid)

    def exp(self, a: Complex) -> Complex:
        size = self.exp_real(a[0])
        if a[1].exact_zero:
            return self.real(size)
        return self.product(size, self.cos(a[1])), self.product(size, self.sin(a[1]))

    def ln(self, a: Ball) -> Ball:
        if a.mid - a.rad <= 0:
            raise Undefined("the logarithm of what may be 0 or less")
        return self.rounded(a.mid.ln(), a.rad / (a.mid - a.rad))

    def sin(self, a: Ball) -> Ball:
        if abs(a.mid) > 1_000_000:
            raise Undefined("too large an angle")
        with decimal.localcontext() as context:
            context.prec += 20
            turn = 2 * _pi(context.prec)
            mid = _sin(a.mid - turn * (a.mid / turn).to_integral_value())
        return Ball(+mid, a.rad + 2 * self.unit)

    def cos(self, a: Ball) -> Ball:
        half = self.rounded(_pi(self.digits) / 2, _ZERO)
        return self.sin(self.add(half, self.minus(a)))

    def arctan(self, a: Ball) -> Ball:
        with decimal.localcontext() as context:
            context.prec += 20
            mid = _arctan(a.mid)
        return self.rounded(+mid, a.rad + self.unit)

    def call(self, name: str, args: list[Complex]) -> Complex:
        self.spend()
        value = args[0]
        if name in ("degrees", "percent"):
            return self.times(
                value, self.real(self.fraction(Fraction(1, 100) if name == "percent" else Fraction(1)))
            )
        if name == "exp":
            return self.exp(value)
        if name == "abs" and not value[1].exact_zero:
            squares = self.add(self.product(value[0], value[0]), self.product(value[1], value[1]))
            return self.real(self.sqrt(squares))
        return self.real(self.real_call(name, _only_real(value), args))

    def real_call(self, name: str, x: Ball, args: list[Complex]) -> Ball:
        one = Ball(Decimal(1))
        if name == "abs":
            return Ball(abs(x.mid), x.rad)
        if name == "ln":
            return self.ln(x)
        if name in ("floor", "ceil"):
            return _stepped(name, x)
        if name in ("factorial", "binomial"):
            return self.fraction(Fraction(_counted(name, [_only_real(arg) for arg in args])))
        if name in ("sinh", "cosh", "tanh"):
            up, down = self.exp_real(x), self.exp_real(self.minus(x))
            top, bottom = self.add(up, self.minus(down)), self.add(up, down)
            if name == "tanh":
                return self.product(top, self.inverse(bottom))
            return self.product(top if name == "sinh" else bottom, Ball(Decimal("0.5")))
        if name == "arctan":
            return self.arctan(x)
        if name in ("arcsin", "arccos"):
            root = self.sqrt(self.add(one, self.minus(self.product(x, x))))
            angle = self.arctan(self.product(x, self.inverse(root)))
            quarter = self.rounded(_pi(self.digits) / 2, _ZERO)
            return angle if name == "arcsin" else self.add(quarter, self.minus(angle))
        ratios = {"tan": ("sin", "cos"), "cot": ("cos", "sin"), "sec": ("", "cos"), "csc": ("", "sin")}
        parts = {"sin": self.sin, "cos": self.cos}
        if name in parts:
            return parts[name](x)
        if name in ratios:
            top_name, bottom_name = ratios[name]
            return self.product(parts[top_name](x) if top_name else one, self.inverse(parts[bottom_name](x)))
        raise Undefined(name)


def _only_real(value: Complex) -> Ball:
    if not value[1].exact_zero:
        raise Undefined("complex")
    return value[0]


def _whole(tree: Expr) -> int | None:
    if tree.op == "num" and tree.value.denominator == 1:
        return int(tree.value) if abs(tree.value) < 10**12 else None
    if tree.op == "*" and len(tree.args) == 2 and tree.args[0].value == -1 and tree.args[0].op == "num":
        inner = _whole(tree.args[1])
        return None if inner is None else -inner
    return None


def _root_index(tree: Expr) -> int | None:
    """n where the exponent is written 1/n."""
    if tree.op == "num" and tree.value.numerator == 1:
        return tree.value.denominator
    if tree.op == "*" and len(tree.args) == 2 and tree.args[0].op == "num" and tree.args[0].value == 1:
        return _root_index(tree.args[1])
    if tree.op == "^" and _whole(tree.args[1]) == -1:
        return _whole(tree.args[0])
    return None


def _stepped(name: str, x: Ball) -> Ball:
    rounding = decimal.ROUND_FLOOR if name == "floor" else decimal.ROUND_CEILING
    low, high = ((x.mid + sign * x.rad).to_integral_value(rounding=rounding) for sign in (-1, 1))
    if low != high:
        raise Undefined("on a step")
    return Ball(low)


def _counted(name: str, args: list[Ball]) -> int:
    if any(arg.rad or arg.mid != arg.mid.to_integral_value() or not 0 <= arg.mid <= 5_000 for arg in args):
        raise Undefined("not a small whole number")
    return (
        math.factorial(int(args[0].mid))
        if name == "factorial"
        else math.comb(int(args[0].mid), int(args[1].mid))
    )


def _pi(digits: int) -> Decimal:
    """Machin's formula: 16 arctan(1/5) - 4 arctan(1/239), in whole numbers."""
    scale = 10 ** (digits + 10)
    total = 0
    for factor, inverse in ((16, 5), (-4, 239)):
        term = factor * scale // inverse
        n, square = 1, inverse * inverse
        while term:
            total += term // n
            term, n = -term // square if term < 0 else -(term // square), n + 2
    return Decimal(total).scaleb(-(digits + 10))


def _sin(x: Decimal) -> Decimal:
    """Taylor's series; |x| at most pi."""
    term, total, n = x, x, 1
    while term and total + term != total - term:
        term = -term * x * x / ((n + 1) * (n + 2))
        total, n = total + term, n + 2
    return total


def _arctan(x: Decimal) -> Decimal:
    """Taylor's series after halving the angle four times."""
    for _ in range(4):
        x = x / (1 + (1 + x * x).sqrt())
    term, total, n = x, x, 1
    while term and total + term != total - term:
        term = -term * x * x
        total, n = total + term / (n + 2), n + 2
    return 16 * total
