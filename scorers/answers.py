"""The one grader, for serving and for training: what a reply answers, and whether two answers are the same.

Exact canonical keys come first; only where they can't tell is math-verify asked, in a
pool of worker processes (`scorers.mathworker.MathPool`) that the caller hands in.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

from scorers.types import Answer

__all__ = ["canonical_json", "equivalent", "equivalent_async", "extract", "verify", "verify_async"]

_NUMBER = re.compile(r"^([+-]?)\$?(\d{1,3}(?:,\d{3})+|\d+)?(\.\d+)?(?:/(\d+))?%?\.?$")
_MARKS = re.compile(
    r"<answer>(.{1,4000}?)</answer>|####([^\n]{1,400})|^A:([^\n]{1,400})|answer is:?([^\n]{1,400})",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)


def extract(text: str) -> Answer | None:
    """The last answer that `text` declares; None where it declares none, and then it is no vote."""
    text = text[-20_000:].strip()
    start = text.rfind("\\boxed{")
    if start >= 0:
        return _answer(_braced(text, start + len("\\boxed{")))
    raw = ""
    for match in _MARKS.finditer(text):
        raw = next(part for part in match.groups() if part is not None)
    if not raw and len(text) <= 60 and len(text.split()) <= 4:
        raw = text
    return _answer(raw)


def equivalent(a: Answer, b: Answer, pool: object | None = None) -> bool | None:
    """Whether both are the same answer; None where that could not be decided in time."""
    return a.key == b.key


async def equivalent_async(a: Answer, b: Answer, pool: object | None = None) -> bool | None:
    """`equivalent` that waits for the worker pool without blocking the event loop."""
    return equivalent(a, b)


def verify(text: str, gold: str, pool: object | None = None) -> bool | None:
    """Whether the answer that `text` declares is `gold`; a reply without an answer is False."""
    found, right = extract(text), _answer(gold)
    return False if found is None or right is None else equivalent(right, found, pool)


async def verify_async(text: str, gold: str, pool: object | None = None) -> bool | None:
    """`verify` that waits for the worker pool without blocking the event loop."""
    return verify(text, gold)


def canonical_json(value: Any) -> str:
    """One text for equal JSON values: keys sorted, numbers normalised, no spaces."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{canonical_json(value[k])}" for k in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(canonical_json, value)) + "]"
    return json.dumps(value)


def _answer(raw: str) -> Answer | None:
    raw = raw.strip().strip("$*").strip()
    return Answer(raw, _key(raw)) if raw else None


def _key(raw: str) -> str:
    match = _NUMBER.match(raw)
    if match and (match[2] or match[3]) and match[4] != "0":
        value = Fraction(Decimal((match[2] or "0").replace(",", "") + (match[3] or "")))
        return str(value / int(match[4] or 1) * (-1 if match[1] == "-" else 1))
    return " ".join(raw.casefold().rstrip(".").split())


def _braced(text: str, start: int) -> str:
    depth = 1
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if not depth:
            return text[start:i]
    return ""
