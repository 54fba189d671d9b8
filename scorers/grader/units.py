"""Words around a number that are not the answer: units, currency, hedges."""

# ruff: noqa: SIM905 - word lists read better as words
from __future__ import annotations

import re

from scorers.grader.expressions import FUNCTIONS

__all__ = ["strip_lead", "strip_unit"]

_SHORT_UNITS = frozenset(
    (
        "mm cm dm km m ft in yd mi kg mg g lb lbs oz s h hr hrs min ms ml mL L l mph kph W kW J kJ N K C F V "
        "A Hz kHz MHz GHz Pa kPa GB MB KB TB kWh mol cc sq pts pt USD EUR GBP deg rad units unit cents cent"
    ).split()
)
_NOT_UNITS = FUNCTIONS | frozenset(
    (
        "and or if mod to for when where is are not in of with the than from by x pi theta alpha beta gamma "
        "phi infty infinity am pm million billion trillion thousand hundred dozen no solution solutions "
        "remainder binom begin end pmatrix bmatrix matrix frac sqrt oo pm mp times cdot div"
    ).split()
)
_PIECES = re.compile(r"[A-Za-z]+|\^ ?(?:\{ ?-?\d ?\}|-?\d)|[ ./*\-]|.")
_WORD_START = re.compile(r"(?<![A-Za-z\\_{])[A-Za-z]")
_LEAD = re.compile(
    r"^(?:(?:about|approximately|approx\.?|roughly|around|exactly|only|just|nearly|almost|a total of|the|an?)"
    r"\s+"
    r"|\\approx\s*|≈\s*|~\s*|[€£¥₹]\s*|US\s*(?=\d)|(?:USD|EUR|GBP|Rs\.?)\s*(?=-?[\d.]))(?=\S)",
    re.IGNORECASE,
)
_PERCENT = re.compile(r" ?(?:percentage points?|percent|per cent)$")
_TEMPERATURE = re.compile(r" ?(?:°|\^ ?\\circ|\^ ?\{ ?\\circ ?\}) ?[CF]$")


def strip_lead(text: str) -> str:
    """`text` without "about", "a total of", a currency sign and the like in front."""
    for _ in range(4):
        shorter = _LEAD.sub("", text)
        if shorter == text:
            break
        text = shorter
    return re.sub(r"^-\s*[€£¥₹]\s*", "-", text)


def strip_unit(text: str) -> str:
    """`text` without a unit behind its number: "5 cm^2" and "25 miles per hour" lose theirs, "4a" nothing."""
    if len(text) > 200 or not (text[-1:].isalnum() or text[-1:] in ("}", "°")):
        return text
    text = _PERCENT.sub("%", text)
    text = _TEMPERATURE.sub("", text)
    starts = [match.start() for match in _WORD_START.finditer(text)][-8:]
    for start in starts:
        head = text[:start]
        bare = head.rstrip(" -")
        if bare and _ends_with_number(bare) and _is_unit(text[start:], spaced=head != bare):
            return bare
    return text


def _ends_with_number(head: str) -> bool:
    return any(char.isdigit() for char in head) and (
        head[-1].isdigit() or head[-1] in ")}]%°!" or head.endswith("\\pi")
    )


def _is_unit(tail: str, spaced: bool) -> bool:
    words = []
    for piece in _PIECES.findall(tail):
        if piece.isalpha():
            words.append(piece)
        elif piece[0] not in "^ ./*-":
            return False
    if any(word.casefold() in _NOT_UNITS for word in words):
        return False
    known = [word in _SHORT_UNITS or (len(word) > 2 and spaced) for word in words]
    if not spaced:
        return all(known) and len(words[0]) > 1
    return all(known) or (known[0] and len(words[0]) > 2)
