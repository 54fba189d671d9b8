"""Parses equations, assignments and inequalities."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from scorers.grader.algebra import as_rational, normal_form, primitive_part, render
from scorers.grader.expressions import Expr, parse_expression
from scorers.grader.latex import split_outside_brackets
from scorers.grader.numeric import symbols
from scorers.grader.values import (
    Value,
    all_mathematical,
    assigned_key,
    exact_value,
    has_plus_minus,
    sequence_value,
    union_value,
)

__all__ = ["parse_relation"]

Parse = Callable[[str], Value]

_RELATION = re.compile(r"<=|>=|!=|==|=|<|>|\\approx|\\in(?![A-Za-z])|(?<=[A-Za-z}]) in (?=[(\[{\\])")
_SYMBOL = re.compile(
    r"\\?([A-Za-z]|alpha|beta|gamma|theta|lambda|mu|phi|omega|sigma)(_\{?\w{1,8}\}?)?'?"
    r"(?:\([a-z](?:, ?[a-z])*\))?"
)
_SEGMENT = re.compile(r"(?:\\overline ?\{ ?)?([A-Z]{2,3})(?: ?\})?")
_TUPLE = re.compile(r"\([A-Za-z](?:, ?[A-Za-z])+\)")
_NAMES = re.compile(r"(?:[A-Za-z]+ )*(?:[A-Za-z]{4,}|sum|ans|age|cost)(?: [A-Za-z]+)*")
_LESS, _MINUS_INFINITY, _INFINITY = "<", Value("number", "-oo"), Value("number", "oo")


def parse_relation(text: str, parse: Parse) -> Value | None:
    """Return the value of an equation, assignment or inequality, else None. `parse` parses its sides."""
    pieces, marks = split_outside_brackets(text, _RELATION)
    if not marks or len(marks) > 10:
        return None
    sides = [piece.strip() for piece in pieces]
    signs = [" in" if "in" in mark else mark.replace("==", "=") for mark in marks]
    if all(sign in ("=", "\\approx", " in") for sign in signs):
        return _parse_equation(sides, signs, parse)
    if len(signs) <= 2 and all(sign[0] in "<>!" for sign in signs):
        return _parse_inequality(sides, signs, parse)
    return None


def _parse_equation(sides: list[str], signs: list[str], parse: Parse) -> Value | None:
    if "\\approx" in signs and (len(sides) > 2 or not _variable_name(sides[0])):
        # The side before "approximately" is the exact answer.
        cut = signs.index("\\approx")
        sides, signs = sides[: cut + 1], signs[:cut]
    first, last = sides[0], parse(sides[-1])
    if len(sides) == 1 or not first:
        return last
    if not all_mathematical([last]):
        return None
    name = _variable_name(first)
    if not name and len(sides) == 2 and _variable_name(sides[1]):
        name, last = _variable_name(sides[1]), parse(first)
    return _assigned_value(sides, name, last) or _plain_equation(sides, last)


def _assigned_value(sides: list[str], name: str, value: Value) -> Value | None:
    """Return the value with its name, or without words that stand for one; None for an equation."""
    first = sides[0]
    if len(sides) == 2:
        if value.kind in ("sequence", "set") and _TUPLE.fullmatch(first):
            return value
        segment = _SEGMENT.fullmatch(first)
        if segment and value.kind == "number" and not _variables(value):
            return replace(value, name=segment[1], key=assigned_key(segment[1], value.key))
    if name and not value.name and (value.expr is None or name not in symbols(value.expr)):
        return replace(value, name=name, key=assigned_key(name, value.key))
    return value if _NAMES.fullmatch(first) else None


def _plain_equation(sides: list[str], last: Value) -> Value | None:
    """Return the equation of the last two sides; where the left one is a number, return `last`."""
    left, right = _try_expression(sides[-2]), _try_expression(sides[-1])
    if left is None or right is None:
        return last if _NAMES.search(sides[0]) else None
    return _against_zero(left, right, "=") if symbols(left) else last


def _variable_name(side: str) -> str:
    """Return the name, if `side` is only a variable or a function as in f(x); else an empty string."""
    match = _SYMBOL.fullmatch(side)
    if match is None:
        return ""
    index = (match[2] or "").strip("_{}")
    return match[1] + (f"_{{{index}}}" if len(index) > 1 else f"_{index}" if index else "")


def _against_zero(left: Expr, right: Expr, sign: str) -> Value | None:
    """Return left (sign) right as a form against 0, with coprime integer coefficients."""
    difference = Expr("+", (left, Expr("*", (Expr("num", value=Fraction(-1)), right))))
    try:
        poly = normal_form(difference)
    except (ArithmeticError, ValueError):
        return None
    if as_rational(poly) is not None:
        return None
    content, core = primitive_part(poly)
    if content < 0 and sign != "=":
        core = {mono: -value for mono, value in core.items()}
    kind = "equation" if sign == "=" else "inequality"
    return Value(kind, f"{render(core)}{sign}0", expr=difference, form=sign)


def _parse_inequality(sides: list[str], signs: list[str], parse: Parse) -> Value | None:
    position = next((i for i, side in enumerate(sides) if _variable_name(side)), None)
    if position is not None:
        limits = [parse(side) for i, side in enumerate(sides) if i != position]
        if all(limit.kind == "number" and not _variables(limit) for limit in limits):
            return _interval_value(_variable_name(sides[position]), position, signs, limits)
    if len(signs) != 1 or signs[0] == "!=":
        return None
    left, right = _try_expression(sides[0]), _try_expression(sides[1])
    if left is None or right is None:
        return None
    if signs[0][0] == ">":
        left, right = right, left
    value = _against_zero(left, right, signs[0].replace(">", _LESS))
    return value and (_solve_linear(value) or value)


def _variables(value: Value) -> frozenset[str]:
    return symbols(value.expr) - {"oo"} if value.expr else frozenset()


def _solve_linear(value: Value) -> Value | None:
    """Return the interval of an inequality that is linear in its only variable; else None."""
    if value.expr is None or len(_variables(value)) != 1:
        return None
    (name,) = _variables(value)
    terms = normal_form(value.expr)
    slope = terms.pop(((name, Fraction(1)),), None)
    limit = as_rational(terms)
    if slope is None or limit is None:
        return None
    sign = value.form if slope > 0 else value.form.replace(_LESS, ">")
    return _interval_value(name, 0, [sign], [exact_value(-limit / slope)])


def _interval_value(name: str, position: int, signs: list[str], limits: list[Value]) -> Value | None:
    """Return the values that the variable at `position` among the sides may have."""
    if signs == ["!="]:
        return union_value(
            [
                sequence_value((_MINUS_INFINITY, limits[0]), "()"),
                sequence_value((limits[0], _INFINITY), "()"),
            ],
            name,
        )
    if len(signs) == 1:
        below = (signs[0][0] == _LESS) == (position == 0)
        limits = [_MINUS_INFINITY, limits[0]] if below else [limits[0], _INFINITY]
        signs = [_LESS, signs[0]] if below else [signs[0], _LESS]
    elif position != 1 or signs[0][0] != signs[1][0] or "!=" in signs:
        return None
    elif signs[0][0] == ">":
        limits, signs = limits[::-1], signs[::-1]
    form = ("[" if signs[0].endswith("=") else "(") + ("]" if signs[1].endswith("=") else ")")
    return sequence_value(limits, form, name)


def _try_expression(text: str) -> Expr | None:
    try:
        tree = parse_expression(text)
    except ValueError:
        return None
    return None if has_plus_minus(tree) else tree
