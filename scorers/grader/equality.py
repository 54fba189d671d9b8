"""Whether two answers' values are the same. Symmetric by construction; None where it can't tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from scorers.grader.expressions import Expr
from scorers.grader.numeric import approximate, proportional, same_value, symbols
from scorers.grader.values import Value, unassigned

__all__ = ["EFFORT", "same"]

EFFORT = 8  # costly steps that one evaluation may take on the event loop; see `numeric.same_value`
_TRUTH = {"true": "yes", "false": "no"}


def same(a: Value, b: Value, effort: int = EFFORT) -> bool | None:
    """Whether `a` and `b` are one answer; None where one of them could not be read."""
    if a.key == b.key:
        return True
    a, b = sorted((a, b), key=lambda value: (value.kind, value.key))
    if "opaque" in (a.kind, b.kind):
        return True if _bare(a.key) == _bare(b.key) else None
    if "option" in (a.kind, b.kind):
        return _options(a, b, effort)
    if a.kind != b.kind and "equation" in (a.kind, b.kind):
        return _assignment(a, b, effort)
    if a.name and b.name and a.name != b.name:
        return False
    if bool(a.name) != bool(b.name):
        return same(unassigned(a), unassigned(b), effort)
    if a.kind == b.kind:
        return _alike(a, b, effort)
    return _unlike(a, b, effort)


def _alike(a: Value, b: Value, effort: int) -> bool | None:
    if a.kind == "number":
        return _numbers(a, b, effort)
    if a.kind == "text":
        return _words(a.key) == _words(b.key)
    if a.kind in ("sequence", "matrix"):
        interval = len(a.items) == len(b.items) == 2 and all(
            item.kind == "number" for item in (*a.items, *b.items)
        )
        return False if interval and a.form != b.form else _in_order(a.items, b.items, effort)
    if a.kind in ("set", "union"):
        return _in_any_order(a.items, b.items, effort)
    if a.kind in ("equation", "inequality"):
        return _equations(a, b, effort)
    return False


def _unlike(a: Value, b: Value, effort: int) -> bool | None:
    kinds = {a.kind: a, b.kind: b}
    listed = kinds.get("set")
    if listed and len(listed.items) == 1:
        return same(listed.items[0], a if listed is b else b, effort)
    ordered = kinds.get("sequence")
    if listed and ordered and not listed.form:
        return _in_order(listed.items, ordered.items, effort)
    if ordered and "matrix" in kinds:
        return _in_order(a.items, b.items, effort)
    if "inequality" in kinds and (ordered or listed or "union" in kinds):
        return None  # it could not be solved here, and may have just these solutions
    return False


def _bare(key: str) -> str:
    return key.replace("{", "").replace("}", "").replace(" ", "")


def _words(key: str) -> str:
    """Without the plural's s, so that "apple" and "apples" are one; true is yes."""
    key = _TRUTH.get(key, key)
    return " ".join(
        word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] not in "sui" else word
        for word in key.split()
    )


def _options(a: Value, b: Value, effort: int) -> bool | None:
    if a.kind == b.kind:
        return False
    option, other = (a, b) if a.kind == "option" else (b, a)
    if other.key.casefold() == option.key.casefold():
        return True
    return same(option.items[0], other, effort) if option.items else False


def _numbers(a: Value, b: Value, effort: int) -> bool | None:
    if a.percent != b.percent:
        plain, percent = (a, b) if b.percent else (b, a)
        verdicts = [_values(a, b, effort), _values(plain, _signless(percent), effort)]
        return True if True in verdicts else None if None in verdicts else False
    return _values(a, b, effort)


def _signless(value: Value) -> Value:
    """50% read as the number 50."""
    exact = None if value.exact is None else value.exact * 100
    places = None if value.places is None else value.places - 2
    expr = value.expr.args[0] if value.expr and value.expr.args else value.expr
    return replace(value, exact=exact, places=places, expr=expr)


def _values(a: Value, b: Value, effort: int) -> bool | None:
    if a.exact is not None and b.exact is not None:
        return a.exact == b.exact or _close(a.exact, a.places, b.exact, b.places)
    left, right = _tree(a), _tree(b)
    verdict = same_value(left, right, effort)
    if verdict is not False or (a.places is None and b.places is None):
        return verdict
    written, other = (a, right) if a.places is not None else (b, left)
    value = None if symbols(other) else approximate(other, effort)
    return value is not None and _close(written.exact or Fraction(0), written.places, value, None)


def _tree(value: Value) -> Expr:
    return value.expr or Expr("num", value=value.exact or Fraction(0))


def _close(a: Fraction, a_places: int | None, b: Fraction, b_places: int | None) -> bool:
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
    digits = _digits(a, unit)
    if b_places is None:
        return digits >= 4 and not _ends(b) and abs(a - b) < unit
    finest = Fraction(1, 10) ** b_places
    noise = _digits(b, finest) >= 12 and abs(a - b) <= Fraction(1, 10**9) * abs(b)
    return noise or (digits >= 4 and 2 * abs(a - b) <= unit)


def _digits(value: Fraction, unit: Fraction) -> int:
    return len(str(abs(int(value / unit))))


def _ends(value: Fraction) -> bool:
    """Whether the decimal expansion ends within 30 places."""
    return 10**30 % value.denominator == 0


def _in_order(a: Sequence[Value], b: Sequence[Value], effort: int) -> bool | None:
    if len(a) != len(b):
        return False
    verdicts = [same(x, y, effort) for x, y in zip(a, b, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _in_any_order(a: Sequence[Value], b: Sequence[Value], effort: int) -> bool | None:
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
        verdicts = [same(item, other, effort) for other in rest]
        if True in verdicts:
            rest.pop(verdicts.index(True))
        elif None in verdicts:
            undecided = True
        else:
            return False
    return None if undecided else True


def _assignment(a: Value, b: Value, effort: int) -> bool | None:
    """y = 2x + 3 against 2x - y + 3 = 0."""
    equation, other = (a, b) if a.kind == "equation" else (b, a)
    if not (other.name and other.kind == "number" and equation.expr):
        return False
    difference = Expr(
        "+", (Expr("sym", name=other.name), Expr("*", (Expr("num", value=Fraction(-1)), _tree(other))))
    )
    if proportional(equation.expr, difference, effort):
        return True
    return False if _polynomial(equation.key) and _polynomial(other.key) else None


def _equations(a: Value, b: Value, effort: int) -> bool | None:
    if a.expr is None or b.expr is None:
        return None
    if a.kind == "equation" and proportional(a.expr, b.expr, effort):
        return True
    return False if _polynomial(a.key) and _polynomial(b.key) else None


def _polynomial(key: str) -> bool:
    return "(" not in key
