"""Reads the text of an answer into its value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from scorers.grader.canonical_json import canonical_json, read_json
from scorers.grader.dates import canonical_time
from scorers.grader.expressions import FUNCTIONS, parse_expression
from scorers.grader.latex import split_outside_brackets, strip_formatting
from scorers.grader.number_words import compound_amount, words_to_digits
from scorers.grader.relations import parse_relation
from scorers.grader.units import strip_lead, strip_unit
from scorers.grader.values import (
    MAX_MATH,
    Value,
    all_mathematical,
    decimal_value,
    exact_value,
    expression_value,
    sequence_value,
    set_value,
    text_value,
    union_value,
    without_name,
)

__all__ = ["canonical_key", "json_key", "parse_answer"]

MAX_ITEMS, MAX_DEPTH, MAX_JSON = 100, 5, 1 << 16

_SIMPLE = re.compile(r"-?(?:\d{1,18}|\d{1,3}(?:,\d{3}){1,5})(?:\.\d{1,18})?", re.ASCII)
_FRACTION = re.compile(r"(-?)(?:(\d{1,18})/(\d{1,18})|\\[dt]?frac\{(\d{1,18})\}\{(\d{1,18})\})", re.ASCII)
_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)
_NUMBERS_ONLY = re.compile(r"[\d\s\[\],.eE+-]*")
_OPTION = re.compile(r"(?:[Oo]ption|[Cc]hoice) \(?([A-Ja-j])\)?[.):]?|\(?([A-J])\)?[.):]?|\(([a-j])\)")
_LABELLED = re.compile(r"(?:\(([A-Ja-j])\)|([A-J])[.):])\s+(\S.*)")
_PARTS = re.compile(r"(?:^|[,;]? ?(?:and )?)\(?([a-j])\) ?(?=\S)")
_ITEMS = re.compile(r",\s*(?:(?:and|or)\s+)?|;\s*|\s+(?:and|or)\s+")
_COMMAS = re.compile(r"[,;]\s*")
_UNION = re.compile(r"\\cup(?![A-Za-z])|(?<=[\])}])\s*U\s*(?=[\[({\\])")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_SPACED = re.compile(r"(?<![\d.])\d{1,3}(?: \d{3})+(?![\d/])")
_BASED = re.compile(r"([0-9A-F]{1,40})_\{? ?(\d{1,2}) ?\}?")
_RATIO = re.compile(r"(\d{1,9})(?: ?: ?| to )(\d{1,9})", re.ASCII)
_BASE_PREFIX = re.compile(r"(-?)0(?:x([0-9a-f]{1,40})|b([01]{1,120})|o([0-7]{1,40}))", re.I)
_WITHOUT = re.compile(r"(.{1,100}?)(?:\\setminus(?![A-Za-z])|\\backslash(?![A-Za-z])) ?(\\?\{.{1,100}\\?\})")
_REPEATING = re.compile(r"(-?)(\d{0,20})\.(\d{0,20}) ?\\(?:overline|bar|dot) ?\{(\d{1,20})\}")
_MATRIX = re.compile(r"\\begin\{([pbBvV]?matrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}", re.DOTALL)
_WORDS_ONLY = re.compile(r"[A-Za-z][A-Za-z .,'&;:?\"()-]*")
_YES_NO = re.compile(
    r"(yes|no)\b(?=[,.:;!-]|\s+(?:it|they|he|she|this|that|the|there|we|you|i|because|since)\b)", re.I
)
_NO_SOLUTION = re.compile(
    r"(?:there (?:is|are|exists?) )?no (?:real |such |valid |possible )?solutions?(?: exists?)?", re.I
)
_SYNONYMS = {
    "yes": "yes", "no": "no", "true": "true", "false": "false", "none": "none", "empty set": "none",
    "\\emptyset": "none", "\\varnothing": "none", "\\{\\}": "none", "\\{ \\}": "none", "{}": "none",
    "does not exist": "undefined", "dne": "undefined", "undefined": "undefined", "not defined": "undefined",
    "all real numbers": "(-oo,oo)", "all reals": "(-oo,oo)", "real numbers": "(-oo,oo)",
    "\\mathbb{r}": "(-oo,oo)", "\\mathbb r": "(-oo,oo)", "\\reals": "(-oo,oo)",
}  # fmt: skip


def parse_answer(text: str) -> Value:
    """The value of an answer's text. Never raises; what it can't read is words or opaque."""
    if _SIMPLE.fullmatch(text):
        return decimal_value(text)
    plainly = _FRACTION.fullmatch(text)
    if plainly and (fraction := _fraction_value(*plainly.groups())):
        return fraction
    value = _parse(strip_formatting(text), 0)
    for _ in range(3):  # words without their article or capitals may read as something else: "the 5"
        again = _parse(strip_formatting(value.key), 0) if value.kind == "text" else value
        if again.key == value.key:
            break
        value = again
    return value


def canonical_key(text: str) -> str:
    """The key of an answer's text; for a whole number without building its value."""
    return str(int(text)) if _WHOLE.fullmatch(text) else parse_answer(text).key


def json_key(text: str) -> str | None:
    """The canonical JSON of an object, or of a list of more than numbers; None for anything else."""
    if len(text) > MAX_JSON or text[:1] + text[-1:] not in ("{}", "[]") or _NUMBERS_ONLY.fullmatch(text):
        return None
    for candidate in (text, text.replace("'", '"') if '"' not in text else ""):
        try:
            return canonical_json(read_json(candidate))
        except ValueError:
            continue
    return None


def _parse(text: str, depth: int) -> Value:
    if _SIMPLE.fullmatch(text):
        return decimal_value(text)
    key = json_key(text)
    if key is not None and key != "{}":
        return Value("json", key)
    if len(text) > MAX_MATH or depth > MAX_DEPTH:
        return text_value(text)
    return _parse_words(text, depth) or _parse_mathematics(text, depth) or text_value(text)


def _parse_words(text: str, depth: int) -> Value | None:
    known = _SYNONYMS.get(text.casefold()) or (_NO_SOLUTION.fullmatch(text) and "none")
    if known:
        return _parse(known, depth + 1) if known[0] == "(" else Value("text", known)
    option = _OPTION.fullmatch(text)
    if option:
        return Value("option", next(filter(None, option.groups())).upper())
    parts = _parse_parts(text, depth)
    if parts:
        return parts
    labelled = _LABELLED.fullmatch(text)
    if labelled:
        return Value("option", (labelled[1] or labelled[2]).upper(), (_parse(labelled[3], depth + 1),))
    moment = canonical_time(text) or compound_amount(text)
    if moment and "." in moment:
        return decimal_value(moment)
    if moment:
        return Value("time", moment)
    stated = _YES_NO.match(text)
    return Value("text", stated[1].casefold()) if stated else None


def _parse_parts(text: str, depth: int) -> Value | None:
    """(a) 3, (b) 5: the answers of a question's parts in their order."""
    marks = list(_PARTS.finditer(text)) if text[:2] in ("a)", "(a") else []
    if len(marks) < 2 or [mark[1] for mark in marks] != list("abcdefghij")[: len(marks)]:
        return None
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    items = [text[mark.end() : end].strip(" ,;.") for mark, end in zip(marks, ends, strict=True)]
    return sequence_value([_parse(item, depth + 1) for item in items], "()") if all(items) else None


def _parse_mathematics(text: str, depth: int) -> Value | None:
    if _WORDS_ONLY.fullmatch(text) and any(_is_word(word) for word in re.findall(r"[A-Za-z]+", text)):
        digits = words_to_digits(text)
        return _parse(digits, depth + 1) if digits else _parse_list(text, depth)
    text = strip_lead(text)
    text = words_to_digits(text) or text
    text = _SPACED.sub(lambda match: match[0].replace(" ", ""), text)
    contained = _parse_bracketed(text, depth)
    if contained:
        return contained
    text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    return (
        _parse_list(text, depth)
        or parse_relation(text, lambda side: _parse(side, depth + 1))
        or _parse_scalar(text)
    )


def _is_word(word: str) -> bool:
    return len(word) > 1 and word not in FUNCTIONS and word not in ("pi", "theta", "oo", "inf", "infinity")


def _parse_bracketed(text: str, depth: int) -> Value | None:
    """A matrix, union, set, tuple, list or interval; None where brackets don't hold all of `text`."""
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        return _parse_matrix(matrix[2], depth)
    without = _WITHOUT.fullmatch(text)
    if without:
        return _difference_value(_parse(without[1].strip(), depth + 1), _parse(without[2], depth + 1))
    pieces, _ = split_outside_brackets(text, _UNION)
    if 1 < len(pieces) <= MAX_ITEMS:
        parts = [_parse(piece.strip(), depth + 1) for piece in pieces]
        return union_value(parts, parts[0].name)
    for left, right in (("\\{", "\\}"), ("{", "}")):
        if text.startswith(left) and text.endswith(right) and _is_enclosed(text[len(left) : -len(right)]):
            items = _parse_items(text[len(left) : -len(right)], depth)
            return set_value(items, form="{}") if items else text_value(text)
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and _is_enclosed(text[1:-1]):
        pieces, _ = split_outside_brackets(text[1:-1], _COMMAS)
        if 2 <= len(pieces) <= MAX_ITEMS:
            read_items = [_parse(piece.strip(), depth + 1) for piece in pieces]
            return (
                sequence_value(read_items, text[0] + text[-1])
                if all_mathematical(read_items)
                else text_value(text)
            )
    return None


def _difference_value(whole: Value, points: Value) -> Value | None:
    """The real numbers without a few of them, as a union of open intervals."""
    numbers = sorted(item.exact for item in points.items if item.exact is not None)
    if whole.key != "(-oo,oo)" or points.kind != "set" or not 0 < len(numbers) == len(points.items):
        return None
    ends = [whole.items[0], *(exact_value(number) for number in numbers), whole.items[1]]
    return union_value([sequence_value(pair, "()") for pair in pairwise(ends)])


def _is_enclosed(inside: str) -> bool:
    """Whether the brackets around `inside` belong together."""
    depth = 0
    for char in inside:
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return False
    return not depth


def _parse_items(text: str, depth: int) -> list[Value]:
    pieces = [piece.strip() for piece in split_outside_brackets(text, _ITEMS)[0]]
    if len(pieces) > MAX_ITEMS or not all(pieces):
        return []
    items: list[Value] = []
    for piece in pieces:
        item = _parse(piece, depth + 1)
        items += item.items if "\\pm" in piece and item.kind == "set" else (item,)
    return items if all_mathematical(items) else []


def _parse_matrix(body: str, depth: int) -> Value | None:
    """A matrix by rows; one that is a single row or column is a vector, the tuple of its components."""
    rows = [row.split("&") for row in body.split("\\\\") if row.strip()]
    if not rows or sum(map(len, rows)) > MAX_ITEMS:
        return None
    cells = [[_parse(cell.strip(), depth + 1) for cell in row] for row in rows]
    flat = [cell for row in cells for cell in row]
    if not all_mathematical(flat):
        return None
    if len(flat) in (len(rows), len(cells[0])):
        return sequence_value(flat, "()")
    return sequence_value([sequence_value(row, "[]") for row in cells], "[]")


def _parse_list(text: str, depth: int) -> Value | None:
    """Several answers without brackets, in no order; assignments by their names."""
    if not _ITEMS.search(text):
        return None
    items = _parse_items(text, depth)
    if len(items) < 2:
        return None
    names = {item.name for item in items}
    if len(names) == 1 and items[0].kind == "sequence" and items[0].name and " or " in text:
        return union_value(items, items[0].name)
    if items[0].name and len(names - {""}) == 1:
        return set_value([without_name(item) for item in items], items[0].name)
    return _assignments_value(items) if "" not in names else set_value(items)


def _assignments_value(items: Sequence[Value]) -> Value:
    """x = 1, y = 2: their values in the order of their names."""
    ordered = tuple(sorted(items, key=lambda item: item.name))
    return Value("sequence", ",".join(item.key for item in ordered), ordered, form="()")


def _parse_scalar(text: str) -> Value | None:
    based = _BASED.fullmatch(text)
    if based:
        return Value("text", f"{based[1]}_{based[2]}")
    prefixed = _BASE_PREFIX.fullmatch(text)
    if prefixed:
        sign, *digits = prefixed.groups()
        whole = next(int(each, base) for each, base in zip(digits, (16, 2, 8), strict=True) if each)
        return exact_value(Fraction(-whole if sign else whole))
    ratio = _RATIO.fullmatch(text)
    if ratio and int(ratio[2]):
        value = Fraction(int(ratio[1]), int(ratio[2]))
        return Value("number", f"{value.numerator}:{value.denominator}", exact=value, form=":")
    repeating = _REPEATING.fullmatch(text)
    if repeating:
        return _repeating_value(*repeating.groups())
    for candidate in dict.fromkeys((strip_unit(text), text)):
        try:
            return expression_value(parse_expression(candidate), candidate)
        except ValueError:
            continue
    return None


def _fraction_value(sign: str, *parts: str | None) -> Value | None:
    """3/4 or \\frac{3}{4}; None over 0."""
    top, bottom = (int(part) for part in parts if part is not None)
    return exact_value(Fraction(-top if sign else top, bottom)) if bottom else None


def _repeating_value(sign: str, whole: str, once: str, again: str) -> Value:
    """0.1\\overline{6} is 1/6."""
    period = Fraction(int(again), 10 ** len(once) * (10 ** len(again) - 1))
    value = Fraction(f"{whole or 0}.{once or 0}") + period
    exact = -value if sign else value
    return Value("number", str(exact), exact=exact)
