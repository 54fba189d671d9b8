"""The exact normal form of an expression: a sum of products with rational coefficients.

Equal polynomials, surds and numbers get one form. Where two forms differ the values may
still be equal (a quotient not divided out, an identity of sines): `scorers.grader.numeric` decides.
"""

from __future__ import annotations

import math
from fractions import Fraction

from scorers.grader.expressions import Expr, Unreadable

__all__ = ["Polynomial", "as_rational", "normal_form", "primitive_part", "render"]

Monomial = tuple[tuple[str, Fraction], ...]
Polynomial = dict[Monomial, Fraction]
"""Coefficients by monomial; a monomial is its atoms' names with their exponents, sorted."""

MAX_TERMS, MAX_BITS, MAX_POWER, MAX_COUNTED = 40, 1 << 16, 10, 8
MAX_PRODUCTS = 150  # of terms, in one normalisation
MAX_WRITTEN = 1_000  # bits of a number in the text of a form
_ONE: Monomial = ()
_UNIT: Polynomial = {_ONE: Fraction(1)}


def normal_form(tree: Expr) -> Polynomial:
    """The normal form of `tree`; raises `Unreadable` where it would be too large or has none."""
    return _Normalizer().of(tree)


def as_rational(poly: Polynomial) -> Fraction | None:
    """The value of a form without atoms, else None."""
    if not poly:
        return Fraction(0)
    return poly[_ONE] if len(poly) == 1 and _ONE in poly else None


def primitive_part(poly: Polynomial) -> tuple[Fraction, Polynomial]:
    """The content and what is left: coprime whole coefficients, the first one positive."""
    values = list(poly.values())
    content = Fraction(math.gcd(*(v.numerator for v in values)), math.lcm(*(v.denominator for v in values)))
    if poly[min(poly, key=_sort_key)] < 0:
        content = -content
    return content, {mono: value / content for mono, value in poly.items()}


def render(poly: Polynomial) -> str:
    """One text for one form, and reading it gives that form; raises `Unreadable` where it is too long."""
    parts = []
    for mono in sorted(poly, key=_sort_key):
        value = poly[mono]
        factors = [atom if power == 1 else f"{atom}^{_render_power(power)}" for atom, power in mono]
        if abs(value) != 1 or not factors:
            factors.insert(0, _render_fraction(abs(value)))
        parts.append(("-" if value < 0 else "+") + "*".join(factors))
    return "".join(parts).removeprefix("+") or "0"


def _sort_key(mono: Monomial) -> tuple[Fraction, Monomial]:
    return -sum((power for _, power in mono), Fraction(0)), mono


def _render_power(power: Fraction) -> str:
    return str(power) if power.denominator == 1 and power > 0 else f"({power})"


def _render_fraction(value: Fraction) -> str:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_WRITTEN:
        raise Unreadable("too long to write out")
    return str(value)


class _Normalizer:
    """One normalisation; `bases` remembers the sums that stand as atoms, by their text."""

    def __init__(self) -> None:
        self.bases: dict[str, Polynomial] = {}
        self.counted = self.products = 0

    def of(self, tree: Expr) -> Polynomial:
        if tree.op == "num":
            return _constant(tree.value)
        if tree.op == "sym":
            if tree.name == "oo":
                raise Unreadable("infinity is no number")
            return {((tree.name, Fraction(1)),): Fraction(1)}
        if tree.op == "+":
            total: Polynomial = {}
            for arg in tree.args:
                _add_into(total, self.of(arg))
            return total
        if tree.op == "*":
            product = self.of(tree.args[0])
            for arg in tree.args[1:]:
                product = self.times(product, self.of(arg))
            return product
        if tree.op == "^":
            return self.raised(self.of(tree.args[0]), self.of(tree.args[1]))
        if tree.op == "call":
            return self.call(tree.name, [self.of(arg) for arg in tree.args])
        raise Unreadable(f"no normal form for {tree.op}")

    def times(self, a: Polynomial, b: Polynomial) -> Polynomial:
        if a == _UNIT:
            return b
        self.products += len(a) * len(b)
        if self.products > MAX_PRODUCTS:
            raise Unreadable("too many terms")
        total: Polynomial = {}
        for mono_a, value_a in a.items():
            for mono_b, value_b in b.items():
                _add_into(total, self.monomials(mono_a, mono_b, _check_size(value_a * value_b)))
        return total

    def monomials(self, a: Monomial, b: Monomial, value: Fraction) -> Polynomial:
        powers = dict(a)
        for atom, power in b:
            powers[atom] = powers.get(atom, Fraction(0)) + power
        rest: dict[str, Fraction] = {}
        expanded: Polynomial | None = None
        for atom, power in powers.items():
            if not power:
                continue
            left = power
            if atom == "i" and power.denominator == 1:
                value *= -1 if power % 4 in (2, 3) else 1
                left = Fraction(power % 2)
            elif atom[0].isdigit():
                whole = power.numerator // power.denominator
                value = _check_size(value * _integer_power(Fraction(atom), whole))
                left = power - whole
            elif atom in self.bases and power.denominator == 1 and 0 < power <= MAX_POWER:
                factor = self.raised(self.bases[atom], _constant(power))
                expanded = factor if expanded is None else self.times(expanded, factor)
                continue
            if left:
                rest[atom] = left
        single = {tuple(sorted(rest.items())): value}
        return single if expanded is None else self.times(single, expanded)

    def raised(self, base: Polynomial, exponent: Polynomial) -> Polynomial:
        power = as_rational(exponent)
        if power is None:
            return _atom(f"({render(base)})^({render(exponent)})")
        if not base:
            if power <= 0:
                raise Unreadable("division by zero")
            return {}
        if len(base) == 1:
            return self.raised_monomial(base, power)
        if power.denominator == 1 and 0 <= power <= MAX_POWER:
            result = _constant(Fraction(1))
            for _ in range(int(power)):
                result = self.times(result, base)
            return result
        content, core = primitive_part(base)
        if power.denominator != 1 and content < 0:
            content, core = -content, {mono: -value for mono, value in core.items()}
        name = f"({render(core)})"
        self.bases[name] = core
        return self.times(self.root(content, power), {((name, power),): Fraction(1)})

    def raised_monomial(self, base: Polynomial, power: Fraction) -> Polynomial:
        ((mono, value),) = base.items()
        if power.denominator == 1 or not mono:
            result = self.root(value, power)
            for atom, exponent in mono:
                result = self.times(result, self.monomials((), ((atom, exponent * power),), Fraction(1)))
            return result
        # sqrt(x^2) is not x: only the number leaves the root, and a lone variable keeps its power.
        sign = -1 if value < 0 else 1
        if sign == 1 and len(mono) == 1 and mono[0][1] == 1 and mono[0][0] not in ("i",):
            return self.times(self.root(value, power), {((mono[0][0], power),): Fraction(1)})
        core: Polynomial = {mono: Fraction(sign)}
        name = f"({render(core)})"
        self.bases[name] = core
        return self.times(self.root(abs(value), power), {((name, power),): Fraction(1)})

    def root(self, value: Fraction, power: Fraction) -> Polynomial:
        """value ** power as whole part and roots of primes; real roots for odd indices."""
        if power.denominator == 1:
            return _constant(_integer_power(value, int(power)))
        result = _constant(Fraction(1))
        if value < 0:
            if power.denominator % 2:
                result = _constant(Fraction(-1 if power.numerator % 2 else 1))
            elif power.denominator == 2:
                result = self.monomials((), (("i", Fraction(power.numerator)),), Fraction(1))
            else:
                raise Unreadable("an even root of a negative number")
        for number, sign in ((abs(value.numerator), 1), (value.denominator, -1)):
            for prime, count in _root_factors(number, power.denominator):
                atoms: Monomial = ((str(prime), sign * power * count),)
                result = self.times(result, self.monomials((), atoms, Fraction(1)))
        return result

    def call(self, name: str, args: list[Polynomial]) -> Polynomial:
        value = as_rational(args[0])
        if name == "degrees":
            return args[0]
        if name == "percent":
            return self.times(args[0], _constant(Fraction(1, 100)))
        if value is not None:
            self.counted += name in ("factorial", "binomial")
            if self.counted > MAX_COUNTED:
                raise Unreadable("too many factorials")
            exact = _exact_call(name, [value, *(as_rational(arg) for arg in args[1:])])
            if exact is not None:
                return _constant(exact)
        if name == "exp":
            return self.raised({(("e", Fraction(1)),): Fraction(1)}, args[0])
        inner = [render(arg) for arg in args]
        if name == "factorial":
            return _atom(f"({inner[0]})!")
        if name == "binomial":
            return _atom(f"\\binom{{{inner[0]}}}{{{inner[1]}}}")
        return _atom(f"{name}({inner[0]})")


def _exact_call(name: str, values: list[Fraction | None]) -> Fraction | None:
    value = values[0]
    if value is None:
        return None
    whole = value.denominator == 1 and value >= 0
    if name == "factorial" and whole and value <= 5_000:
        return _check_size(Fraction(math.factorial(int(value))))
    if name == "binomial" and whole and value <= 5_000:
        chosen = values[1]
        if chosen is not None and chosen.denominator == 1 and chosen >= 0:
            return _check_size(Fraction(math.comb(int(value), int(chosen))))
    simple = {"abs": abs(value), "floor": Fraction(math.floor(value)), "ceil": Fraction(math.ceil(value))}
    if name in simple:
        return simple[name]
    zero = {"sin": 0, "tan": 0, "cos": 1, "exp": 1, "arcsin": 0, "arctan": 0, "sinh": 0, "tanh": 0, "cosh": 1}
    if not value and name in zero:
        return Fraction(zero[name])
    return Fraction(0) if name == "ln" and value == 1 else None


def _atom(text: str) -> Polynomial:
    return {((text, Fraction(1)),): Fraction(1)}


def _constant(value: Fraction) -> Polynomial:
    return {_ONE: value} if value else {}


def _add_into(total: Polynomial, more: Polynomial) -> None:
    """Adds `more` into `total`."""
    for mono, value in more.items():
        added = value + total.get(mono, 0)
        if added:
            total[mono] = _check_size(added)
        else:
            total.pop(mono, None)
    if len(total) > MAX_TERMS:
        raise Unreadable("too many terms")


def _check_size(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise Unreadable("too large to write out")
    return value


def _integer_power(value: Fraction, power: int) -> Fraction:
    bits = max(value.numerator.bit_length(), value.denominator.bit_length())
    if abs(value) not in (0, 1) and bits * abs(power) > MAX_BITS:
        raise Unreadable("too large to write out")
    if not value and power < 0:
        raise Unreadable("division by zero")
    return value**power


def _root_factors(number: int, index: int) -> list[tuple[int, int]]:
    """Small primes of `number` with their counts; what is left is one factor, rooted if it has a root."""
    if number.bit_length() > 1_000:
        raise Unreadable("too large to take a root of")
    found = []
    divisor = 2
    while divisor < 1_000 and divisor * divisor <= number:
        count = 0
        while number % divisor == 0:
            number, count = number // divisor, count + 1
        if count:
            found.append((divisor, count))
        divisor += 1 if divisor == 2 else 2
    if number > 1:
        root = round(number ** (1 / index))
        found.append((root, index) if root > 1 and root**index == number else (number, 1))
    return found
