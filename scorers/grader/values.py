"""What an answer can mean, each meaning with its exact canonical key."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from scorers.grader.algebra import as_rational, normal_form, render
from scorers.grader.expressions import Expr, choose_sign

__all__ = [
    "MAX_MATH",
    "Value",
    "all_mathematical",
    "assigned_key",
    "decimal_value",
    "exact_value",
    "expression_value",
    "has_plus_minus",
    "sequence_value",
    "set_value",
    "text_value",
    "union_value",
    "without_name",
]

MAX_MATH = 1_000  # characters of an answer that is still read as mathematics
_MATHS = re.compile(r"[\\^_=<>+*/|]")
_LONG_WORD = re.compile(r"[^\W\d_]{4}")
_COMMA = re.compile(r" ?([,;]) ?")
_ARTICLE = re.compile(r"\b(?:the|an|a) (?=\w)")


@dataclass(frozen=True, slots=True)
class Value:
    """What an answer means.

    `kind` is "number" (any expression), "sequence" (`form` holds its brackets), "set" (its
    `form` is empty for a bare list, whose `items` stand as written), "matrix", "union",
    "equation", "inequality", "time", "option" (`items` holds the text behind the letter),
    "json", "text" (words), or "opaque" (mathematics that can't be read here). `name` is the
    variable it was assigned to; `exact` its value where rational; `places` its decimals
    where written with a point; `percent` says that it had a percent sign.
    """

    kind: str
    key: str
    items: tuple[Value, ...] = ()
    expr: Expr | None = None
    name: str = ""
    form: str = ""
    exact: Fraction | None = None
    places: int | None = None
    percent: bool = False


def decimal_value(text: str) -> Value:
    """A plain number such as -1,234.50."""
    whole, point, rest = text.replace(",", "").partition(".")
    if not point:
        exact = Fraction(int(whole))
        return Value("number", str(int(whole)), exact=exact)
    exact = Fraction(int(whole + rest), 10 ** len(rest))
    return Value("number", str(exact), exact=exact, places=len(rest))


def exact_value(value: Fraction) -> Value:
    """An exact number."""
    return Value("number", str(value), expr=Expr("num", value=value), exact=value)


def expression_value(tree: Expr, text: str) -> Value:
    """An expression; the two of a plus-or-minus are a set. `text` is its key where it has no normal form."""
    if has_plus_minus(tree):
        return set_value([expression_value(choose_sign(tree, sign), text) for sign in (1, -1)])
    if tree.op == "call" and tree.name == "degrees":
        tree = tree.args[0]
    percent = tree.op == "call" and tree.name == "percent"
    infinite = tree.args[-1] if tree.op == "*" and len(tree.args) == 2 else tree
    if infinite.op == "sym" and infinite.name == "oo":
        return Value("number", "oo" if infinite is tree else "-oo", expr=tree)
    key, exact = text.replace(" ", ""), None
    with contextlib.suppress(ArithmeticError, ValueError, RecursionError):
        poly = normal_form(tree)
        exact = as_rational(poly)
        key = render(poly)
    written = tree.args[0] if percent else tree
    places = None if written.places is None else written.places + 2 * percent
    return Value("number", key, expr=tree, exact=exact, places=places, percent=percent)


def has_plus_minus(tree: Expr) -> bool:
    """Whether `tree` holds a plus-or-minus."""
    return tree.op == "pm" or any(has_plus_minus(arg) for arg in tree.args)


def set_value(items: Sequence[Value], name: str = "", form: str = "") -> Value:
    """A set, or a bare list (`form` empty): equal items once, in no order."""
    distinct = tuple({item.key: item for item in items}.values())
    key = "{" + ",".join(sorted(item.key for item in distinct)) + "}"
    return Value("set", assigned_key(name, key), distinct, name=name, form=form)


def sequence_value(items: Sequence[Value], form: str, name: str = "") -> Value:
    """A tuple, list or interval in the brackets `form`; a list of lists is a matrix."""
    kind = "matrix" if form == "[]" == items[0].form else "sequence"
    key = form[0] + ",".join(item.key for item in items) + form[1]
    return Value(kind, assigned_key(name, key), tuple(items), name=name, form=form)


def union_value(items: Iterable[Value], name: str = "") -> Value | None:
    """A union of intervals and sets; None where an item is neither."""
    parts = {bare.key: bare for bare in map(without_name, items)}
    if any(part.kind not in ("sequence", "set", "union") for part in parts.values()):
        return None
    ordered = tuple(parts[key] for key in sorted(parts))
    return Value("union", assigned_key(name, "U".join(part.key for part in ordered)), ordered, name=name)


def assigned_key(name: str, key: str) -> str:
    """The key of what `name` was set to, or is in."""
    if not name:
        return key
    return f"{name} in {key}" if key[:1] in "({[" else f"{name}={key}"


def without_name(value: Value) -> Value:
    """`value` without the name it was assigned to."""
    key = value.key.removeprefix(f"{value.name} in ").removeprefix(f"{value.name}=")
    return replace(value, name="", key=key)


def text_value(text: str) -> Value:
    """Text without case, articles and the marks at its ends; mathematics that could not be read is opaque."""
    if len(text) <= MAX_MATH and ("\\" in text or (_MATHS.search(text) and not _LONG_WORD.search(text))):
        return Value("opaque", text.replace(" ", ""))
    key = _COMMA.sub(r"\1 ", " ".join(text.casefold().split()))
    return Value("text", _ARTICLE.sub("", key).strip(" .,;:!?\"'") or key)


def all_mathematical(items: Iterable[Value]) -> bool:
    """Whether all items were read; single letters count."""
    return all(item.kind not in ("text", "opaque") or len(item.key) == 1 for item in items)
