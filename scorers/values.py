"""Reads the text of an answer into a value with its exact canonical key."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from scorers.algebra import normal, primitive, rational, render
from scorers.dates import canonical_time
from scorers.expressions import FUNCTIONS, Expr, Unreadable, parse, with_sign
from scorers.jsonkeys import canonical_json, read_json
from scorers.latex import plain, split_top
from scorers.numeric import symbols
from scorers.units import number_words, without_lead, without_unit

__all__ = ["Value", "read"]

MAX_MATH, MAX_ITEMS, MAX_DEPTH = 1_000, 100, 6


@dataclass(frozen=True, slots=True)
class Value:
    """What an answer means.

    `kind` is "number" (any expression), "sequence" (`form` holds its brackets), "set"
    (also a bare list, `items` as written), "matrix", "union", "equation", "inequality",
    "time", "option", "json", "text" (words), or "opaque" (mathematics this reader can't
    read). `name` is the variable it was assigned to; `exact` its value where rational;
    `places` its decimals where written with a point; `percent` that it had a percent sign.
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


_SIMPLE = re.compile(r"-?(?:\d{1,18}|\d{1,3}(?:,\d{3}){1,5})(?:\.\d{1,18})?")
_JSON = re.compile(r"[\[{].*[\]}]", re.DOTALL)
_OPTION = re.compile(r"\(?([A-J])\)?[.):]?|\(([a-j])\)")
_LABELLED = re.compile(r"(?:\(([A-Ja-j])\)|([A-J])[.):])\s+(\S.*)")
_ITEMS = re.compile(r",\s*(?:(?:and|or)\s+)?|;\s*|\s+(?:and|or)\s+")
_RELATION = re.compile(r"(<=|>=|!=|==|=|<|>|\\approx|\\in(?![A-Za-z])|(?<=[A-Za-z]) in (?=[(\[{\\]))")
_UNION = re.compile(r"\\cup(?![A-Za-z])|(?<=[\])}])\s*U\s*(?=[\[({\\])")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_SPACED = re.compile(r"(?<![\d.])\d{1,3}(?: \d{3})+(?![\d/])")
_SYMBOL = re.compile(
    r"\\?([A-Za-z]|alpha|beta|gamma|theta|lambda|mu|phi|omega|sigma)(_\{?\w{1,8}\}?)?'?(?:\([a-z](?:, ?[a-z])*\))?"
)
_NAMES = re.compile(r"(?:[A-Za-z]+ )*(?:[A-Za-z]{4,}|sum|ans|age|cost)(?: [A-Za-z]+)*")
_BASED = re.compile(r"([0-9A-F]+)_\{? ?(\d{1,2}) ?\}?")
_RATIO = re.compile(r"(\d{1,9}) ?: ?(\d{1,9})")
_MATRIX = re.compile(r"\\begin\{([pbBvV]?matrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}", re.DOTALL)
_WORDS_ONLY = re.compile(r"[A-Za-z][A-Za-z .,'&;:?\"()-]*")
_MATHS = re.compile(r"[\\^_=<>+*/|]")
_ARTICLE = re.compile(r"\b(?:the|an|a) (?=\w)")
_SYNONYMS = {
    "yes": "yes", "no": "no", "true": "true", "false": "false",
    "\\emptyset": "none", "\\varnothing": "none", "\\{\\}": "none", "{}": "none", "no solution": "none",
    "no solutions": "none", "no real solution": "none", "no real solutions": "none", "none": "none",
    "empty set": "none", "\\{ \\}": "none", "there is no solution": "none", "there are no solutions": "none",
    "does not exist": "undefined", "dne": "undefined", "undefined": "undefined", "not defined": "undefined",
    "all real numbers": "(-oo,oo)", "all reals": "(-oo,oo)", "\\mathbb{r}": "(-oo,oo)", "\\mathbb r": "(-oo,oo)",
    "real numbers": "(-oo,oo)", "\\reals": "(-oo,oo)",
}  # fmt: skip


def read(text: str) -> Value:
    """The value of an answer's text. Never raises; what it can't read is words or opaque."""
    if _SIMPLE.fullmatch(text):
        return _decimal(text)
    value = _read(plain(text), 0)
    for _ in range(3):
        if value.kind != "text" or "\n" in value.key:
            break
        again = _read(plain(value.key), 0)
        if again.key == value.key:
            break
        value = again
    return value


def _read(text: str, depth: int) -> Value:
    if len(text) > MAX_MATH or depth > MAX_DEPTH:
        return _json(text) or _text(text)
    if _SIMPLE.fullmatch(text):
        return _decimal(text)
    return _word(text) or _json(text) or _mathematics(text, depth) or _text(text)


def _decimal(text: str) -> Value:
    text = text.replace(",", "")
    value = Fraction(text)
    places = len(text.partition(".")[2]) if "." in text else None
    return Value("number", str(value), exact=value, places=places)


def _word(text: str) -> Value | None:
    known = _SYNONYMS.get(text.casefold())
    if known:
        return _read(known, 1) if known[0] == "(" else Value("text", known)
    option = _OPTION.fullmatch(text)
    if option:
        return Value("option", (option[1] or option[2]).upper())
    labelled = _LABELLED.fullmatch(text)
    if labelled:
        return Value("option", (labelled[1] or labelled[2]).upper(), (_read(labelled[3], 1),))
    moment = canonical_time(text)
    if moment:
        return Value("time", moment)
    if text.casefold().startswith(("yes,", "no,", "yes.", "no.", "yes ", "yes-", "yes:", "no:")):
        return Value("text", "yes" if text[0] in "yY" else "no")
    return None


def _json(text: str) -> Value | None:
    """Objects, and lists that hold more than numbers; a list of numbers is a sequence."""
    if not _JSON.fullmatch(text) or len(text) > 1 << 18:
        return None
    for candidate in (text, text.replace("'", '"') if '"' not in text else ""):
        try:
            key = canonical_json(read_json(candidate))
        except ValueError:
            continue
        return Value("json", key) if re.search(r"[^\d\s\[\],.eE+-]", candidate) else None
    return None


def _mathematics(text: str, depth: int) -> Value | None:
    if _WORDS_ONLY.fullmatch(text) and any(_is_word(word) for word in re.findall(r"[A-Za-z]+", text)):
        digits = number_words(text)
        return _read(digits, depth + 1) if digits else _listed(text, depth)
    text = without_lead(text)
    text = number_words(text) or text
    text = _SPACED.sub(lambda match: match[0].replace(" ", ""), text)
    return _container(text, depth) or _listed(text, depth) or _related(text, depth) or _scalar(text)


def _is_word(word: str) -> bool:
    return len(word) > 1 and word not in FUNCTIONS and word not in ("pi", "theta", "oo", "inf", "infinity")


def _container(text: str, depth: int) -> Value | None:
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        return _matrix(matrix[2], depth)
    pieces = split_top(text, _UNION)
    if len(pieces) > 1:
        return _union([_read(piece.strip(), depth + 1) for piece in pieces[:MAX_ITEMS]])
    for left, right in (("\\{", "\\}"), ("{", "}")):
        if text.startswith(left) and text.endswith(right) and _encloses(text[len(left) : -len(right)]):
            items = _items(text[len(left) : -len(right)], depth)
            return replace(_set(items), form="{}") if items else None
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and _encloses(text[1:-1]):
        pieces = split_top(text[1:-1], re.compile(r",\s*|;\s*"))
        if 2 <= len(pieces) <= MAX_ITEMS:
            items = tuple(_read(piece.strip(), depth + 1) for piece in pieces)
            return _sequence(items, text[0] + text[-1]) if _all_read(items) else None
    return None


def _encloses(inside: str) -> bool:
    """Whether the brackets around `inside` belong together."""
    depth = 0
    for char in inside:
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return False
    return not depth


def _all_read(items: Iterable[Value]) -> bool:
    return all(item.kind not in ("text", "opaque") or len(item.key) < 2 for item in items)


def _items(text: str, depth: int) -> tuple[Value, ...]:
    pieces = [piece.strip() for piece in split_top(text, _ITEMS)]
    if len(pieces) > MAX_ITEMS or not all(pieces):
        return ()
    items: list[Value] = []
    for piece in pieces:
        item = _read(piece, depth + 1)
        items += item.items if "\\pm" in piece and item.kind == "set" else (item,)
    return tuple(items) if _all_read(items) else ()


def _set(items: tuple[Value, ...], name: str = "") -> Value:
    distinct = tuple({item.key: item for item in items}.values())
    key = "{" + ",".join(sorted(map(_key, distinct))) + "}"
    return Value("set", _assigned(name, key), distinct, name=name)


def _assigned(name: str, key: str) -> str:
    if not name:
        return key
    return f"{name} in {key}" if key[:1] in "({[" else f"{name}={key}"


def _sequence(items: tuple[Value, ...], form: str, name: str = "") -> Value:
    key = form[0] + ",".join(item.key for item in items) + form[1]
    return Value(
        "matrix" if items[0].form == "[]" == form else "sequence",
        _assigned(name, key),
        items,
        name=name,
        form=form,
    )


def _matrix(body: str, depth: int) -> Value | None:
    rows = [row.strip() for row in body.split("\\\\")]
    cells = [[_read(cell.strip(), depth + 1) for cell in row.split("&")] for row in rows if row]
    if not cells or len(cells) * len(cells[0]) > MAX_ITEMS:
        return None
    lines = tuple(_row(row) for row in cells)
    if not all(_all_read(line.items) for line in lines):
        return None
    if len(lines) == 1 or len(cells[0]) == 1:  # a vector is the tuple of its components
        return _sequence(tuple(cell for row in cells for cell in row), "()")
    return Value("matrix", "[" + ",".join(line.key for line in lines) + "]", lines, form="[]")


def _row(cells: list[Value]) -> Value:
    return Value("sequence", "[" + ",".join(cell.key for cell in cells) + "]", tuple(cells), form="[]")


def _union(items: list[Value]) -> Value | None:
    if any(item.kind not in ("sequence", "set", "union") for item in items):
        return None
    name = items[0].name
    parts = sorted(
        {replace(item, name="", key=item.key.removeprefix(f"{name} in ")) for item in items}, key=_key
    )
    return Value("union", _assigned(name, "U".join(part.key for part in parts)), tuple(parts), name=name)


def _key(value: Value) -> str:
    return value.key


def _listed(text: str, depth: int) -> Value | None:
    """Several answers without brackets: in no order, and a thousands mark is no separator."""
    text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    if not _ITEMS.search(text):
        return None
    items = _items(text, depth)
    if len(items) < 2:
        return None
    names = [item.name for item in items]
    if " or " in text and names[0] and len(set(names)) == 1 and all(i.kind == "sequence" for i in items):
        return _union(list(items))
    if names[0] and not any(names[1:]) or names[0] and len(set(names)) == 1:
        bare = tuple(replace(item, name="", key=item.key.removeprefix(f"{names[0]}=")) for item in items)
        return _set(bare, names[0])
    if all(names):
        ordered = tuple(sorted(items, key=lambda item: item.name))
        return Value("sequence", ",".join(map(_key, ordered)), ordered, form="()")
    return _set(items)


def _related(text: str, depth: int) -> Value | None:
    parts = _RELATION.split(text)
    if len(parts) < 3 or len(parts) > 21:
        return None
    sides = [part.strip() for part in parts[0::2]]
    signs = [" in" if "in" in sign else sign.replace("==", "=") for sign in parts[1::2]]
    if not sides[-1]:
        return None
    if all(sign in ("=", "\\approx", " in") for sign in signs):
        return _equation(sides, signs, depth)
    return _inequality(sides, signs, depth) if len(signs) <= 2 else None


def _equation(sides: list[str], signs: list[str], depth: int) -> Value | None:
    if "\\approx" in signs and len(sides) > 2 or "\\approx" in signs and not _SYMBOL.fullmatch(sides[0]):
        cut = signs.index("\\approx")
        sides, signs = sides[: cut + 1], signs[:cut]
    first, last = sides[0], _read(sides[-1], depth + 1)
    if len(sides) == 1 or not first:
        return last
    if not _all_read([last]):
        return None
    symbol = _SYMBOL.fullmatch(first)
    if symbol is None and _SYMBOL.fullmatch(sides[-1]) and len(sides) == 2:
        symbol, last = _SYMBOL.fullmatch(sides[-1]), _read(first, depth + 1)
    if symbol:
        name = symbol[1] + (symbol[2] or "").replace("{", "").replace("}", "")
        if last.expr is None or name not in symbols(last.expr):
            return replace(last, name=name, key=_assigned(name, last.key)) if not last.name else None
    if _NAMES.fullmatch(first):
        return last
    left, right = _expression(sides[-2]), _expression(sides[-1])
    if left is None or right is None:
        return last if _NAMES.search(first) else None
    if not symbols(left):
        return last
    return _zero(left, right, "=", "equation")


def _zero(left: Expr, right: Expr, sign: str, kind: str) -> Value | None:
    """left (sign) right as a form against 0, its coefficients whole and coprime."""
    difference = Expr("+", (left, Expr("*", (Expr("num", value=Fraction(-1)), right))))
    try:
        poly = normal(difference)
    except (Unreadable, ArithmeticError, ValueError):
        return None
    if rational(poly) is not None:
        return None
    content, core = primitive(poly)
    if content < 0 and sign != "=":
        core = {mono: -value for mono, value in core.items()}
    return Value(kind, f"{render(core)}{sign}0", expr=difference, form=sign)


def _inequality(sides: list[str], signs: list[str], depth: int) -> Value | None:
    if any(sign[0] in "=\\ " for sign in signs):
        return None
    name = next((side for side in sides if _SYMBOL.fullmatch(side)), "")
    limits = [side for side in sides if side != name]
    values = [_read(limit, depth + 1) for limit in limits]
    constant = all(v.kind == "number" and not (v.expr and symbols(v.expr) - {"oo"}) for v in values)
    if name and constant and len(values) == len(signs):
        return _interval(name, sides.index(name), signs, values)
    if len(signs) != 1 or signs[0] == "!=":
        return None
    left, right = _expression(sides[0]), _expression(sides[1])
    if left is None or right is None:
        return None
    if signs[0][0] == ">":
        left, right = right, left
    value = _zero(left, right, signs[0].replace(">", "<"), "inequality")
    return value and (_solved(value) or value)


def _solved(value: Value) -> Value | None:
    """The interval of an inequality that is linear in its only variable."""
    terms = normal(value.expr) if value.expr else {}
    slope = [(mono[0][0], factor) for mono, factor in terms.items() if len(mono) == 1 and mono[0][1] == 1]
    if (
        len(slope) != 1
        or len(terms) > 2
        or (len(terms) == 2 and () not in terms)
        or slope[0][0] not in symbols(value.expr or Expr("num"))
    ):
        return None
    name, factor = slope[0]
    limit = _decimal(str(-terms.get((), Fraction(0)) / factor))
    sign = value.form if factor > 0 else value.form.replace("<", ">")
    return _interval(name, 0, [sign], [limit])


def _interval(name: str, place: int, signs: list[str], values: list[Value]) -> Value | None:
    least, most = _read("-oo", 1), _read("oo", 1)
    if signs == ["!="]:
        parts = [_sequence((least, values[0]), "()"), _sequence((values[0], most), "()")]
        union = _union(parts)
        return union and replace(union, name=name, key=_assigned(name, union.key))
    if len(signs) == 1:
        below = (signs[0][0] == "<") == (place == 0)
        closed = signs[0].endswith("=")
        items = (least, values[0]) if below else (values[0], most)
        form = ("(" + ("]" if closed else ")")) if below else (("[" if closed else "(") + ")")
        return _sequence(items, form, name)
    if place != 1 or signs[0][0] != signs[1][0] or "!=" in signs:
        return None
    ends = ["[" if signs[0].endswith("=") else "(", "]" if signs[1].endswith("=") else ")"]
    if signs[0][0] == ">":
        values = values[::-1]
        ends = ["[" if signs[1].endswith("=") else "(", "]" if signs[0].endswith("=") else ")"]
    return _sequence((values[0], values[1]), "".join(ends), name)


def _expression(text: str) -> Expr | None:
    try:
        tree = parse(text)
    except (Unreadable, ValueError):
        return None
    return None if "pm" in _operations(tree) else tree


def _operations(tree: Expr) -> set[str]:
    return {tree.op}.union(*(_operations(arg) for arg in tree.args))


def _scalar(text: str) -> Value | None:
    based = _BASED.fullmatch(text)
    if based:
        return Value("text", f"{based[1]}_{based[2]}")
    ratio = _RATIO.fullmatch(text)
    if ratio and int(ratio[2]):
        value = Fraction(int(ratio[1]), int(ratio[2]))
        return Value("number", f"{value.numerator}:{value.denominator}", exact=value, form=":")
    bare = without_unit(text)
    for candidate in dict.fromkeys((bare, text)):
        try:
            return _number(parse(candidate), candidate)
        except (Unreadable, ValueError):
            continue
    return None


def _number(tree: Expr, text: str) -> Value:
    if "pm" in _operations(tree):
        signs = tuple(_number(with_sign(tree, sign), text) for sign in (1, -1))
        return _set(signs)
    if tree.op == "call" and tree.name == "degrees":
        tree = tree.args[0]
    percent = tree.op == "call" and tree.name == "percent"
    infinite = tree.args[-1] if tree.op == "*" and len(tree.args) == 2 else tree
    if infinite.op == "sym" and infinite.name == "oo":
        return Value("number", "oo" if infinite is tree else "-oo", expr=tree)
    try:
        poly = normal(tree)
        key, exact = render(poly), rational(poly)
    except (Unreadable, ArithmeticError, ValueError, RecursionError):
        key, exact = text.replace(" ", ""), None
    written = tree.args[0] if percent else tree
    places = None if written.places is None else written.places + 2 * percent
    return Value("number", key, expr=tree, exact=exact, places=places, percent=percent)


def _text(text: str) -> Value:
    words = " ".join(text.casefold().split())
    kind = (
        "opaque" if "\\" in text or (_MATHS.search(text) and not re.search(r"[A-Za-z]{4}", text)) else "text"
    )
    if kind == "opaque":
        return Value(kind, text.replace(" ", ""))
    return Value(kind, _ARTICLE.sub("", words).strip(" .,;:!?\"'") or words)
