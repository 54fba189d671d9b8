"""Writes dates and times of day in ISO 8601's form, as far as the text gives them."""

# ruff: noqa: SIM905 - word lists read better as words
from __future__ import annotations

import re

__all__ = ["canonical_time"]

_MONTHS = "january february march april may june july august september october november december".split()
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_MONTH = r"(?P<month>[a-z]{3,9})\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_DATES = [
    re.compile(r"(?P<year>\d{4})[-/](?P<number>\d{1,2})[-/](?P<day>\d{1,2})"),
    re.compile(r"(?P<year>[12]\d{3})-(?P<number>0[1-9]|1[0-2])"),
    re.compile(r"--(?P<number>\d\d)-(?P<day>\d\d)"),
    re.compile(r"(?P<number>\d{1,2})/(?P<day>1[3-9]|2\d|3[01])/(?P<year>\d{4})"),
    re.compile(r"(?P<day>1[3-9]|2\d|3[01])/(?P<number>\d{1,2})/(?P<year>\d{4})"),
    re.compile(rf"{_MONTH} {_DAY}(?:,? ?(?P<year>\d{{4}}))?"),
    re.compile(rf"(?:the )?{_DAY}(?: of)? {_MONTH}(?:,? ?(?P<year>\d{{4}}))?"),
    re.compile(rf"{_MONTH},? (?P<year>\d{{4}})"),
]
_CLOCK = re.compile(r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))? ?(?:([ap])\.? ?m\.?)?")


def canonical_time(text: str) -> str | None:
    """Return `text` as "YYYY-MM-DD", "--MM-DD", "YYYY-MM" or "HH:MM[:SS]"; None for other text.

    A time without a.m. or p.m. is ambiguous and stays as written ("4:30"), unless it has a leading
    zero or an hour of the 24-hour clock. Dates of numbers alone are read only if the year comes
    first, or if they are unambiguous like 12/31/1999.
    """
    text = text.casefold()
    if len(text) > 40:
        return None
    if text in ("noon", "midnight", "12 noon", "12 midnight"):
        return "12:00" if "noon" in text else "00:00"
    head, _, rest = text.partition(",")
    if head in _DAYS and rest.strip():
        text = rest.strip()
    for pattern in _DATES:
        match = pattern.fullmatch(text)
        date = _date(match.groupdict()) if match else None
        if date:
            return date
    match = _CLOCK.fullmatch(text)
    return _clock(*match.groups()) if match and (match[2] or match[4]) else None


def _date(parts: dict[str, str | None]) -> str | None:
    year, name, day = parts.get("year"), parts.get("month"), parts.get("day")
    number = int(parts.get("number") or 0)
    if name is not None:
        number = next((i for i, month in enumerate(_MONTHS, 1) if _abbreviates(name, month)), 0)
    if not 1 <= number <= 12 or (day is not None and not 1 <= int(day) <= 31):
        return None
    if day is None:
        return f"{year}-{number:02}"
    return f"{year or '-'}-{number:02}-{int(day):02}"


def _abbreviates(name: str, month: str) -> bool:
    return name in (month, month[:3]) or (name == "sept" and month == "september")


def _clock(hour: str, minute: str | None, second: str | None, half: str | None) -> str | None:
    hours, minutes = int(hour), int(minute or 0)
    if minutes > 59 or hours > 23 or int(second or 0) > 59 or (half and not 1 <= hours <= 12):
        return None
    if half:
        hours = hours % 12 + (12 if half == "p" else 0)
    tail = f":{second}" if int(second or 0) else ""
    if not half and 1 <= hours <= 12 and not hour.startswith("0"):
        return f"{hours}:{minutes:02}{tail}"
    return f"{hours:02}:{minutes:02}{tail}"
