"""Whether two answers' values are the same. Symmetric by construction; None where it can't tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from scorers.grader.expressions import Expr
from scorers.grader.numeric import approximate, proportional, same_value, symbols
from scorers.grader.values import Value, without_name

__all__ = ["MAX_COSTLY_STEPS", "same_answer"]

MAX_COSTLY_STEPS = 8  # costly steps that one evaluation may take on the event loop; see `numeric.same_value`
_TRUTH = {"true": "yes", "false": "no"}


def same_answer(a: Value, b: Value, effort: int = MAX_COSTLY_STEPS) -> bool | None:
    """Whether `a` and `b` are one answer; None where one of them could not be read."""
    if a.key == b.key:
        return True
    a, b = sorted((a, b), key=lambda value: (value.kind, value.key))
    if "opaque" in (a.kind, b.kind):
        return True if _without_braces(a.key) == _without_braces(b.key) else None
    if "option" in (a.kind, b.kind):
        return _same_option(a, b, effort)
    if a.kind != b.kind and "equation" in (a.kind, b.kind):
        return _same_assignment(a, b, effort)
    if a.name and b.name and a.name != b.name:
        return False
    if bool(a.name) != bool(b.name):
        return same_answer(without_name(a), without_name(b), effort)
    if a.kind == b.kind:
        return _same_of_one_kind(a, b, effort)
    return _same_across_kinds(a, b, effort)


def _same_of_one_kind(a: Value, b: Value, effort: int) -> bool | None:
    if a.kind == "number":
        return _same_number(a, b, effort)
    if a.kind == "text":
        return _normal_words(a.key) == _normal_words(b.key)
    if a.kind in ("sequence", "matrix"):
        interval = len(a.items) == len(b.items) == 2 and all(
            item.kind == "number" for item in (*a.items, *b.items)
        )
        return False if interval and a.form != b.form else _same_in_order(a.items, b.items, effort)
    if a.kind in ("set", "union"):
        return _same_in_any_order(a.items, b.items, effort)
    if a.kind in ("equation", "inequality"):
        return _same_equation(a, b, effort)
    return False


def _same_across_kinds(a: Value, b: Value, effort: int) -> bool | None:
    kinds = {a.kind: a, b.kind: b}
    listed = kinds.get("set")
    if listed and len(listed.items) == 1:
        return same_answer(listed.items[0], a if listed is b else b, effort)
    ordered = kinds.get("sequence")
    if listed and ordered and not listed.form:
        return _same_in_order(listed.items, ordered.items, effort)
    if ordered and "matrix" in kinds:
        return _same_in_order(a.items, b.items, effort)
    if "inequality" in kinds and (ordered or listed or "union" in kinds):
        return None  # it could not be solved here, and may have just these solutions
    return False


def _without_braces(key: str) -> str:
    return key.replace("{", "").replace("}", "").replace(" ", "")


def _normal_words(key: str) -> str:
    """Without the plural's s, so that "apple" and "apples" are one; true is yes."""
    key = _TRUTH.get(key, key)
    return " ".join(
        word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] not in "sui" else word
        for word in key.split()
    )


def _same_option(a: Value, b: Value, effort: int) -> bool | None:
    if a.kind == b.kind:
        return False
    option, other = (a, b) if a.kind == "option" else (b, a)
    if other.key.casefold() == option.key.casefold():
        return True
    return same_answer(option.items[0], other, effort) if option.items else False


def _same_number(a: Value, b: Value, effort: int) -> bool | None:
    if a.percent != b.percent:
        plain, percent = (a, b) if b.percent else (b, a)
        verdicts = [_same_magnitude(a, b, effort), _same_magnitude(plain, _without_percent(percent), effort)]
        return True if True in verdicts else None if None in verdicts else False
    return _same_magnitude(a, b, effort)


def _without_percent(value: Value) -> Value:
    """50% read as the number 50."""
    exact = None if value.exact is None else value.exact * 100
    places = None if value.places is None else value.places - 2
    expr = value.expr.args[0] if value.expr and value.expr.args else value.expr
    return replace(value, exact=exact, places=places, expr=expr)


def _same_magnitude(a: Value, b: Value, effort: int) -> bool | None:
    if a.exact is not None and b.exact is not None:
        return a.exact == b.exact or _same_when_rounded(a.exact, a.places, b.exact, b.places)
    left, right = _expression_of(a), _expression_of(b)
    verdict = same_value(left, right, effort)
    if verdict is not False or (a.places is None and b.places is None):
        return verdict
    written, other = (a, right) if a.places is not None else (b, left)
    value = None if symbols(other) else approximate(other, effort)
    return value is not None and _same_when_rounded(written.exact or Fraction(0), written.places, value, None)


def _expression_of(value: Value) -> Expr:
    return value.expr or Expr("num", value=value.exact or Fraction(0))


def _same_when_rounded(a: Fraction, a_places: int | None, b: Fraction, b_places: int | None) -> bool:
    """The tolerance rule, for numbers that are not equal; only what was written with a point may be rounded.

    A decimal of 4 or more significant digits stands for a value with no end (1/3, pi) that
    lies within one unit of its last place, and for a longer decimal that rounds to it. Two
    that differ by less than 1e-9 of their size are one where the longer has 12 digits or
    more (floating-point noise).
    """
    if a_places is None and b_places is None:
        return False
    if a_places is None or (b_places is not None and b_places < a_places):
        a, a_places, b, b_places = b, b_places, a, a_places
    unit = Fraction(1, 10) ** (a_places or 0)
    digits = _digit_count(a, unit)
    if b_places is None:
        return digits >= 4 and not _terminates(b) and abs(a - b) < unit
    finest = Fraction(1, 10) ** b_places
    noise = _digit_count(b, finest) >= 12 and abs(a - b) <= Fraction(1, 10**9) * abs(b)
    return noise or (digits >= 4 and 2 * abs(a - b) <= unit)


def _digit_count(value: Fraction, unit: Fraction) -> int:
    return len(str(abs(int(value / unit))))


def _terminates(value: Fraction) -> bool:
    """Whether the decimal expansion ends within 30 places."""
    return 10**30 % value.denominator == 0


def _same_in_order(a: Sequence[Value], b: Sequence[Value], effort: int) -> bool | None:
    if len(a) != len(b):
        return False
    verdicts = [same_answer(x, y, effort) for x, y in zip(a, b, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _same_in_any_order(a: Sequence[Value], b: Sequence[Value], effort: int) -> bool | None:
    """Each item of one has its equal in the other, one to one; items with equal keys pair first."""
    left, right = ({item.key: item for item in side} for side in (a, b))
    if len(left) != len(right):
        return False
    rest = [item for key, item in right.items() if key not in left]
    if len(rest) > effort:
        return None
    undecided = False
    for key, item in left.items():
        if key in right:
            continue
        verdicts = [same_answer(item, other, effort) for other in rest]
        if True in verdicts:
            rest.pop(verdicts.index(True))
        elif None in verdicts:
            undecided = True
        else:
            return False
    return None if undecided else True


def _same_assignment(a: Value, b: Value, effort: int) -> bool | None:
    """y = 2x + 3 against 2x - y + 3 = 0."""
    equation, other = (a, b) if a.kind == "equation" else (b, a)
    if not (other.name and other.kind == "number" and equation.expr):
        return False
    difference = Expr(
        "+",
        (Expr("sym", name=other.name), Expr("*", (Expr("num", value=Fraction(-1)), _expression_of(other)))),
    )
    if proportional(equation.expr, difference, effort):
        return True
    return False if _is_polynomial(equation.key) and _is_polynomial(other.key) else None


def _same_equation(a: Value, b: Value, effort: int) -> bool | None:
    if a.expr is None or b.expr is None:
        return None
    if a.kind == "equation" and proportional(a.expr, b.expr, effort):
        return True
    return False if _is_polynomial(a.key) and _is_polynomial(b.key) else None


def _is_polynomial(key: str) -> bool:
    return "(" not in key
