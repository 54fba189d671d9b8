"""The grader's public functions, for serving and training: extract answers, compare them, verify replies.

Exact canonical keys decide first, then proofs by ball arithmetic. Only if neither can tell,
math-verify decides, in the worker processes of a `scorers.grader.pool.WorkerPool` that the caller
hands in. docs/explanation/grader.md has the rules and their measurements.
"""

from __future__ import annotations

import asyncio
from fractions import Fraction

from scorers.grader.canonical_json import canonical_json
from scorers.grader.equality import same_answer
from scorers.grader.extraction import find_answer
from scorers.grader.parsing import canonical_key, parse_answer
from scorers.grader.pool import MAX_ANSWER_LENGTH, WorkerPool
from scorers.grader.tolerance import exact_tolerance, within_tolerance
from scorers.grader.values import Value
from scorers.types import Answer

__all__ = [
    "MAX_QUICK",
    "canonical_json",
    "equivalent",
    "equivalent_async",
    "extract",
    "extract_async",
    "verify",
    "verify_async",
]

MAX_QUICK = 150
"""Characters of an answer that is read on the event loop."""

MAX_QUICK_TEXT = 2_000  # characters of such a reply; a longer one may be one JSON value, read whole


def extract(text: str) -> Answer | None:
    """Return the last answer that `text` declares; None if it declares none, and so has no vote."""
    raw = find_answer(text)
    return None if raw is None else _answer_with_key(raw)


async def extract_async(text: str) -> Answer | None:
    """Do the same as `extract`, with long texts in a thread."""
    raw = await _find_answer(text)
    if raw is None:
        return None
    return await asyncio.to_thread(_answer_with_key, raw) if len(raw) > MAX_QUICK else _answer_with_key(raw)


def equivalent(a: Answer, b: Answer, pool: WorkerPool | None = None) -> bool | None:
    """Return whether two answers are equal, in either order; None if undecided.

    If the answers alone do not settle it, this waits for `pool`. So never call it with a pool on an
    event loop.
    """
    equal = _compare_parsed(a, b)
    return pool.ask(a.raw, b.raw) if equal is None and pool is not None else equal


async def equivalent_async(a: Answer, b: Answer, pool: WorkerPool | None = None) -> bool | None:
    """Do the same as `equivalent` without blocking the event loop; the pool compares long answers."""
    if a.key == b.key or (_is_whole_number(a.raw) and _is_whole_number(b.raw)):
        return a.key == b.key
    if max(len(a.raw), len(b.raw)) > MAX_QUICK:
        return await _compare_long(a.raw, b.raw, pool)
    await asyncio.sleep(0)  # let the loop do other work between the steps, here and in `verify_async`
    left = parse_answer(a.raw)
    await asyncio.sleep(0)
    equal = same_answer(left, parse_answer(b.raw))
    return await pool.ask_async(a.raw, b.raw) if equal is None and pool is not None else equal


def verify(
    text: str, gold: str, pool: WorkerPool | None = None, *, tolerance: float | None = None
) -> bool | None:
    """Return whether the answer that `text` declares equals `gold`; False if it declares none.

    `gold` is an answer, or a worked solution that declares one. `tolerance` is for data sets with a
    tolerance as their own rule: a number at most that far from the gold is correct too. Raises
    ValueError for a tolerance that is no number over 0.
    """
    allowed = exact_tolerance(tolerance)
    raw = find_answer(text)
    if raw is None:
        return False
    (gold_raw, gold_value), value = _parse_gold(gold), parse_answer(raw)
    if allowed is not None and within_tolerance(gold_value, value, allowed):
        return True
    equal = same_answer(gold_value, value)
    return pool.ask(gold_raw, raw) if equal is None and pool is not None else equal


async def verify_async(
    text: str, gold: str, pool: WorkerPool | None = None, *, tolerance: float | None = None
) -> bool | None:
    """Do the same as `verify` without blocking the event loop."""
    allowed = exact_tolerance(tolerance)
    await asyncio.sleep(0)  # many replies in a row must leave the loop time for other work
    raw = await _find_answer(text)
    if raw is None:
        return False
    await asyncio.sleep(0)
    if max(len(raw), len(gold)) > MAX_QUICK:
        gold_raw, _ = await asyncio.to_thread(_parse_gold, gold)
        if allowed is not None and await asyncio.to_thread(_texts_within_tolerance, gold_raw, raw, allowed):
            return True
        return await _compare_long(gold_raw, raw, pool)
    gold_raw, gold_value = _parse_gold(gold)
    await asyncio.sleep(0)
    value = parse_answer(raw)
    await asyncio.sleep(0)
    if allowed is not None and within_tolerance(gold_value, value, allowed):
        return True
    equal = same_answer(gold_value, value)
    return await pool.ask_async(gold_raw, raw) if equal is None and pool is not None else equal


async def _find_answer(text: str) -> str | None:
    return find_answer(text) if len(text) <= MAX_QUICK_TEXT else await asyncio.to_thread(find_answer, text)


def _answer_with_key(raw: str) -> Answer | None:
    key = canonical_key(raw)
    return Answer(raw, key) if key else None


def _parse_gold(gold: str) -> tuple[str, Value]:
    """Return the gold answer and its value: `gold` itself, or the answer that a worked solution declares."""
    value = parse_answer(gold)
    raw = find_answer(gold) if value.kind in ("text", "opaque") else None
    return (gold, value) if raw is None else (raw, parse_answer(raw))


def _is_whole_number(raw: str) -> bool:
    """Return whether an answer is a plain integer; the keys of two such answers decide."""
    return raw.removeprefix("-").isdecimal() and raw.isascii()


def _compare_parsed(a: Answer, b: Answer) -> bool | None:
    if a.key == b.key or (_is_whole_number(a.raw) and _is_whole_number(b.raw)):
        return a.key == b.key
    return same_answer(parse_answer(a.raw), parse_answer(b.raw))


async def _compare_long(a: str, b: str, pool: WorkerPool | None) -> bool | None:
    """Compare two answers, one of them long, in the pool, or in a thread if too long for the pool."""
    if pool is not None and max(len(a), len(b)) <= MAX_ANSWER_LENGTH:
        return await pool.ask_async(a, b)
    return await asyncio.to_thread(lambda: same_answer(parse_answer(a), parse_answer(b)))


def _texts_within_tolerance(a: str, b: str, allowed: Fraction) -> bool:
    return within_tolerance(parse_answer(a), parse_answer(b), allowed)
