"""Reads numbers in words and amounts of two units: "forty-two", "two thirds", "3 hours and 20 minutes"."""

# ruff: noqa: SIM905 - word lists read better as words
from __future__ import annotations

import re

__all__ = ["compound_amount", "words_to_digits"]

SCALES = {
    "dozen": 12,
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_SCALED = re.compile(
    r"^(-?[\d,]*\.?\d+)[ -](dozen|hundred|thousand|million|billion|trillion)(?: [A-Za-z ]+)?$", re.I
)
_ORDINAL = re.compile(r"^(\d+)(?:st|nd|rd|th)$", re.IGNORECASE)
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
_MAX_WORDS = 20

_UNITS = {
    "year": "year", "yr": "year", "month": "month", "week": "week", "wk": "week", "day": "day", "d": "day",
    "hour": "h", "hr": "h", "h": "h", "minute": "min", "min": "min", "m": "min", "second": "s", "sec": "s",
    "s": "s", "feet": "ft", "foot": "ft", "ft": "ft", "inch": "in", "inche": "in", "in": "in",
    "pound": "lb", "lb": "lb", "ounce": "oz", "oz": "oz", "dollar": "dollar", "cent": "cent",
}  # fmt: skip
_UNIT_SERIES = (
    ("year", "month", "week", "day", "h", "min", "s"),
    ("ft", "in"),
    ("lb", "oz"),
    ("dollar", "cent"),
)
_AMOUNT = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)[ -]?([a-z]+)\.?(?:,? (?:and )?|, ?|$|(?=\d))", re.IGNORECASE)


def words_to_digits(text: str) -> str | None:
    """Return "twelve", "one hundred and five", "3.5 million", "21st" or "two thirds" in digits; else None."""
    scaled = _SCALED.match(text)
    if scaled:
        return f"{scaled[1].replace(',', '')}*{SCALES[scaled[2].casefold()]}"
    ordinal = _ORDINAL.match(text)
    if ordinal:
        return ordinal[1]
    words = text.casefold().replace("-", " ").split()
    if not words or len(words) > _MAX_WORDS:
        return None
    part = _PARTS.get(words[-1].replace("halves", "half").removesuffix("s"))
    if part and len(words) == 2:
        count = _parse_integer(words[:1])
        return None if count is None else f"{count}/{part}"
    whole = _parse_integer(words)
    return None if whole is None else str(whole)


def _parse_integer(words: list[str]) -> int | None:
    """Return the integer that `words` spell; else None. Scales must fall, and tens stand before ones."""
    if len(words) > 1 and words[0] in ("a", "an") and words[1] in SCALES:
        words = ["one", *words[1:]]
    total = group = 0
    last, room = 10**15, 10**3  # the scale before; only less than `room` may still be added to the group
    for index, word in enumerate(words):
        if word == "and" and 0 < index < len(words) - 1 and words[index - 1] in SCALES:
            continue
        if word in _ONES:
            value = _ONES.index(word)
            if value >= room or (not value and len(words) > 1):
                return None
            group, room = group + value, 0
        elif word in _TENS:
            if room < 100:
                return None
            group, room = group + 20 + 10 * _TENS.index(word), 10
        elif word in ("hundred", "dozen"):
            if not 0 < group < 100:
                return None
            group, room = group * SCALES[word], 100 if word == "hundred" else 0
        elif word in SCALES:
            if not group or SCALES[word] >= last:
                return None
            last = SCALES[word]
            total, group, room = total + group * last, 0, 10**3
        else:
            return None
    return total + group


def compound_amount(text: str) -> str | None:
    """Return an amount of two or more units, from large to small, as "3 h 20 min"; else None.

    The units belong to one kind, such as time. Dollars and cents become a number of dollars.
    """
    if len(text) > 80 or not text[:1].isdigit():
        return None
    parts, at = [], 0
    while at < len(text):
        match = _AMOUNT.match(text, at)
        unit = (
            _UNITS.get(match[2].casefold()) or _UNITS.get(match[2].casefold().removesuffix("s"))
            if match
            else None
        )
        if match is None or unit is None:
            return None
        parts.append((match[1], unit))
        at = match.end()
    units = [unit for _, unit in parts]
    series = next((series for series in _UNIT_SERIES if units[0] in series), ())
    ranks = [series.index(unit) if unit in series else -1 for unit in units]
    if len(parts) < 2 or -1 in ranks or ranks != sorted(set(ranks)):
        return None
    if units == ["dollar", "cent"] and parts[1][0].isdigit() and len(parts[1][0]) <= 2:
        return f"{parts[0][0].partition('.')[0]}.{int(parts[1][0]):02}"
    return " ".join(f"{number} {unit}" for number, unit in parts)
