"""The one grader, for serving and for training: what a reply answers, and whether two answers are the same.

Exact canonical keys come first, then proofs by ball arithmetic, and only where neither can
tell is math-verify asked, in the worker processes of a `scorers.grader.pool.WorkerPool` that
the caller hands in. docs/grader.md has the rules and what they were measured at.
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
"""Characters of an answer that the event loop may spend time on."""

MAX_QUICK_TEXT = 2_000  # the same of a reply; a long one may be one JSON value, read whole


def extract(text: str) -> Answer | None:
    """The last answer that `text` declares; None where it declares none, and then it is no vote."""
    raw = find_answer(text)
    return None if raw is None else _keyed_answer(raw)


async def extract_async(text: str) -> Answer | None:
    """`extract` that leaves what may take long to a thread."""
    raw = await _find_answer(text)
    if raw is None:
        return None
    return await asyncio.to_thread(_keyed_answer, raw) if len(raw) > MAX_QUICK else _keyed_answer(raw)


def equivalent(a: Answer, b: Answer, pool: WorkerPool | None = None) -> bool | None:
    """Whether both are the same answer, either way round; None where that could not be decided.

    Waits for `pool` where the answers alone don't settle it: never call this on an event
    loop with a pool.
    """
    verdict = _compare_parsed(a, b)
    return pool.ask(a.raw, b.raw) if verdict is None and pool is not None else verdict


async def equivalent_async(a: Answer, b: Answer, pool: WorkerPool | None = None) -> bool | None:
    """`equivalent` without blocking the event loop; what would take long is left to the pool."""
    if a.key == b.key or (_is_whole_number(a.raw) and _is_whole_number(b.raw)):
        return a.key == b.key
    if max(len(a.raw), len(b.raw)) > MAX_QUICK:
        return await _compare_long(a.raw, b.raw, pool)
    await asyncio.sleep(0)  # the loop's other work comes between the steps, here and in `verify_async`
    left = parse_answer(a.raw)
    await asyncio.sleep(0)
    verdict = same_answer(left, parse_answer(b.raw))
    return await pool.ask_async(a.raw, b.raw) if verdict is None and pool is not None else verdict


def verify(
    text: str, gold: str, pool: WorkerPool | None = None, *, tolerance: float | None = None
) -> bool | None:
    """Whether the answer that `text` declares is `gold`; a reply that declares none is False.

    `gold` is an answer, or a worked solution that declares one. `tolerance` is for data sets
    whose own rule is one: a number that far from the gold, at most, is right as well. Raises
    ValueError where it is no number over 0.
    """
    allowed = exact_tolerance(tolerance)
    raw = find_answer(text)
    if raw is None:
        return False
    (right, wanted), found = _parse_gold(gold), parse_answer(raw)
    if allowed is not None and within_tolerance(wanted, found, allowed):
        return True
    verdict = same_answer(wanted, found)
    return pool.ask(right, raw) if verdict is None and pool is not None else verdict


async def verify_async(
    text: str, gold: str, pool: WorkerPool | None = None, *, tolerance: float | None = None
) -> bool | None:
    """`verify` that waits for the pool without blocking the event loop."""
    allowed = exact_tolerance(tolerance)
    await asyncio.sleep(0)  # many replies in a row must not keep the loop from its other work
    raw = await _find_answer(text)
    if raw is None:
        return False
    await asyncio.sleep(0)
    if max(len(raw), len(gold)) > MAX_QUICK:
        right, wanted = await asyncio.to_thread(_parse_gold, gold)
        if allowed is not None and await asyncio.to_thread(_texts_within_tolerance, right, raw, allowed):
            return True
        return await _compare_long(right, raw, pool)
    right, wanted = _parse_gold(gold)
    await asyncio.sleep(0)
    found = parse_answer(raw)
    await asyncio.sleep(0)
    if allowed is not None and within_tolerance(wanted, found, allowed):
        return True
    verdict = same_answer(wanted, found)
    return await pool.ask_async(right, raw) if verdict is None and pool is not None else verdict


async def _find_answer(text: str) -> str | None:
    return find_answer(text) if len(text) <= MAX_QUICK_TEXT else await asyncio.to_thread(find_answer, text)


def _keyed_answer(raw: str) -> Answer | None:
    key = canonical_key(raw)
    return Answer(raw, key) if key else None


def _parse_gold(gold: str) -> tuple[str, Value]:
    """A gold that reads as a value is itself the answer; another may be a solution that declares it."""
    value = parse_answer(gold)
    raw = find_answer(gold) if value.kind in ("text", "opaque") else None
    return (gold, value) if raw is None else (raw, parse_answer(raw))


def _is_whole_number(raw: str) -> bool:
    """Whether an answer is a bare whole number; two of those are the same or they are not."""
    return raw.removeprefix("-").isdecimal() and raw.isascii()


def _compare_parsed(a: Answer, b: Answer) -> bool | None:
    if a.key == b.key or (_is_whole_number(a.raw) and _is_whole_number(b.raw)):
        return a.key == b.key
    return same_answer(parse_answer(a.raw), parse_answer(b.raw))


async def _compare_long(a: str, b: str, pool: WorkerPool | None) -> bool | None:
    """Two answers, of which one is long, compared by the pool, or in a thread where it takes no such."""
    if pool is not None and max(len(a), len(b)) <= MAX_ANSWER_LENGTH:
        return await pool.ask_async(a, b)
    return await asyncio.to_thread(lambda: same_answer(parse_answer(a), parse_answer(b)))


def _texts_within_tolerance(a: str, b: str, allowed: Fraction) -> bool:
    return within_tolerance(parse_answer(a), parse_answer(b), allowed)
