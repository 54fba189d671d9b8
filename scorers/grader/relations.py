"""Reads equations, assignments and inequalities."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from scorers.grader.algebra import normal, primitive, rational, render
from scorers.grader.expressions import Expr, parse
from scorers.grader.latex import split_top
from scorers.grader.numeric import symbols
from scorers.grader.values import Value, assigned, exactly, mathematical, sequence, signed, union

__all__ = ["related"]

Read = Callable[[str], Value]

_RELATION = re.compile(r"<=|>=|!=|==|=|<|>|\\approx|\\in(?![A-Za-z])|(?<=[A-Za-z}]) in (?=[(\[{\\])")
_SYMBOL = re.compile(
    r"\\?([A-Za-z]|alpha|beta|gamma|theta|lambda|mu|phi|omega|sigma)(_\{?\w{1,8}\}?)?'?"
    r"(?:\([a-z](?:, ?[a-z])*\))?"
)
_SEGMENT = re.compile(r"(?:\\overline ?\{ ?)?([A-Z]{2,3})(?: ?\})?")
_TUPLE = re.compile(r"\([A-Za-z](?:, ?[A-Za-z])+\)")
_NAMES = re.compile(r"(?:[A-Za-z]+ )*(?:[A-Za-z]{4,}|sum|ans|age|cost)(?: [A-Za-z]+)*")
_LESS, _LEAST, _MOST = "<", Value("number", "-oo"), Value("number", "oo")


def related(text: str, read: Read) -> Value | None:
    """The equation, assignment or inequality that `text` is, else None. `read` reads its sides."""
    pieces, marks = split_top(text, _RELATION)
    if not marks or len(marks) > 10:
        return None
    sides = [piece.strip() for piece in pieces]
    signs = [" in" if "in" in mark else mark.replace("==", "=") for mark in marks]
    if all(sign in ("=", "\\approx", " in") for sign in signs):
        return _equation(sides, signs, read)
    if len(signs) <= 2 and all(sign[0] in "<>!" for sign in signs):
        return _inequality(sides, signs, read)
    return None


def _equation(sides: list[str], signs: list[str], read: Read) -> Value | None:
    if "\\approx" in signs and (len(sides) > 2 or not _symbol(sides[0])):
        # What stands before "approximately" is the exact answer.
        cut = signs.index("\\approx")
        sides, signs = sides[: cut + 1], signs[:cut]
    first, last = sides[0], read(sides[-1])
    if len(sides) == 1 or not first:
        return last
    if not mathematical([last]):
        return None
    name = _symbol(first)
    if not name and len(sides) == 2 and _symbol(sides[1]):
        name, last = _symbol(sides[1]), read(first)
    if len(sides) == 2 and last.kind in ("sequence", "set") and _TUPLE.fullmatch(first):
        return last
    segment = _SEGMENT.fullmatch(first)
    if segment and len(sides) == 2 and last.kind == "number" and not _variables(last):
        return replace(last, name=segment[1], key=assigned(segment[1], last.key))
    if name and not last.name and (last.expr is None or name not in symbols(last.expr)):
        return replace(last, name=name, key=assigned(name, last.key))
    if _NAMES.fullmatch(first):
        return last
    left, right = _expression(sides[-2]), _expression(sides[-1])
    if left is None or right is None:
        return last if _NAMES.search(first) else None
    return _zero(left, right, "=") if symbols(left) else last


def _symbol(side: str) -> str:
    """The variable, or the function's name in f(x), that is all of `side`."""
    match = _SYMBOL.fullmatch(side)
    if match is None:
        return ""
    below = (match[2] or "").strip("_{}")
    return match[1] + (f"_{{{below}}}" if len(below) > 1 else f"_{below}" if below else "")


def _zero(left: Expr, right: Expr, sign: str) -> Value | None:
    """left (sign) right as a form against 0, its coefficients whole and coprime."""
    difference = Expr("+", (left, Expr("*", (Expr("num", value=Fraction(-1)), right))))
    try:
        poly = normal(difference)
    except (ArithmeticError, ValueError):
        return None
    if rational(poly) is not None:
        return None
    content, core = primitive(poly)
    if content < 0 and sign != "=":
        core = {mono: -value for mono, value in core.items()}
    kind = "equation" if sign == "=" else "inequality"
    return Value(kind, f"{render(core)}{sign}0", expr=difference, form=sign)


def _inequality(sides: list[str], signs: list[str], read: Read) -> Value | None:
    place = next((i for i, side in enumerate(sides) if _symbol(side)), None)
    if place is not None:
        limits = [read(side) for i, side in enumerate(sides) if i != place]
        if all(each.kind == "number" and not _variables(each) for each in limits):
            return _interval(_symbol(sides[place]), place, signs, limits)
    if len(signs) != 1 or signs[0] == "!=":
        return None
    left, right = _expression(sides[0]), _expression(sides[1])
    if left is None or right is None:
        return None
    if signs[0][0] == ">":
        left, right = right, left
    value = _zero(left, right, signs[0].replace(">", _LESS))
    return value and (_solved(value) or value)


def _variables(value: Value) -> frozenset[str]:
    return symbols(value.expr) - {"oo"} if value.expr else frozenset()


def _solved(value: Value) -> Value | None:
    """The interval of an inequality that is linear in its only variable."""
    if value.expr is None or len(_variables(value)) != 1:
        return None
    (name,) = _variables(value)
    terms = normal(value.expr)
    slope = terms.pop(((name, Fraction(1)),), None)
    limit = rational(terms)
    if slope is None or limit is None:
        return None
    sign = value.form if slope > 0 else value.form.replace(_LESS, ">")
    return _interval(name, 0, [sign], [exactly(-limit / slope)])


def _interval(name: str, place: int, signs: list[str], limits: list[Value]) -> Value | None:
    """Where the variable at `place` among the sides may lie."""
    if signs == ["!="]:
        return union([sequence((_LEAST, limits[0]), "()"), sequence((limits[0], _MOST), "()")], name)
    if len(signs) == 1:
        below = (signs[0][0] == _LESS) == (place == 0)
        limits = [_LEAST, limits[0]] if below else [limits[0], _MOST]
        signs = [_LESS, signs[0]] if below else [signs[0], _LESS]
    elif place != 1 or signs[0][0] != signs[1][0] or "!=" in signs:
        return None
    elif signs[0][0] == ">":
        limits, signs = limits[::-1], signs[::-1]
    form = ("[" if signs[0].endswith("=") else "(") + ("]" if signs[1].endswith("=") else ")")
    return sequence(limits, form, name)


def _expression(text: str) -> Expr | None:
    try:
        tree = parse(text)
    except ValueError:
        return None
    return None if signed(tree) else tree
