"""The one grader, for serving and for training: what a reply answers, and whether two answers are the same.

Exact canonical keys come first, then proofs by ball arithmetic, and only where neither can
tell is math-verify asked, in the worker processes of a `scorers.grader.pool.MathPool` that
the caller hands in. docs/explanation/grader.md has the rules and what they were measured at.
"""

from __future__ import annotations

import asyncio
from fractions import Fraction

from scorers.grader.canonical_json import canonical_json
from scorers.grader.equality import same
from scorers.grader.extraction import declared
from scorers.grader.parsing import key_of, read
from scorers.grader.pool import MAX_QUESTION, MathPool
from scorers.grader.tolerance import near, stated
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
    raw = declared(text)
    return None if raw is None else _answer(raw)


async def extract_async(text: str) -> Answer | None:
    """`extract` that leaves what may take long to a thread."""
    raw = await _declared(text)
    if raw is None:
        return None
    return await asyncio.to_thread(_answer, raw) if len(raw) > MAX_QUICK else _answer(raw)


def equivalent(a: Answer, b: Answer, pool: MathPool | None = None) -> bool | None:
    """Whether both are the same answer, either way round; None where that could not be decided.

    Waits for `pool` where the answers alone don't settle it: never call this on an event
    loop with a pool.
    """
    verdict = _decided(a, b)
    return pool.ask(a.raw, b.raw) if verdict is None and pool is not None else verdict


async def equivalent_async(a: Answer, b: Answer, pool: MathPool | None = None) -> bool | None:
    """`equivalent` without blocking the event loop; what would take long is left to the pool."""
    if a.key == b.key or (_whole(a.raw) and _whole(b.raw)):
        return a.key == b.key
    if max(len(a.raw), len(b.raw)) > MAX_QUICK:
        return await _leave(a.raw, b.raw, pool)
    await asyncio.sleep(0)  # the loop's other work comes between the steps, here and in `verify_async`
    left = read(a.raw)
    await asyncio.sleep(0)
    verdict = same(left, read(b.raw))
    return await pool.ask_async(a.raw, b.raw) if verdict is None and pool is not None else verdict


def verify(
    text: str, gold: str, pool: MathPool | None = None, *, tolerance: float | None = None
) -> bool | None:
    """Whether the answer that `text` declares is `gold`; a reply that declares none is False.

    `gold` is an answer, or a worked solution that declares one. `tolerance` is for data sets
    whose own rule is one: a number that far from the gold, at most, is right as well. Raises
    ValueError where it is no number over 0.
    """
    allowed = stated(tolerance)
    raw = declared(text)
    if raw is None:
        return False
    (right, wanted), found = _gold(gold), read(raw)
    if allowed is not None and near(wanted, found, allowed):
        return True
    verdict = same(wanted, found)
    return pool.ask(right, raw) if verdict is None and pool is not None else verdict


async def verify_async(
    text: str, gold: str, pool: MathPool | None = None, *, tolerance: float | None = None
) -> bool | None:
    """`verify` that waits for the pool without blocking the event loop."""
    allowed = stated(tolerance)
    await asyncio.sleep(0)  # many replies in a row must not keep the loop from its other work
    raw = await _declared(text)
    if raw is None:
        return False
    await asyncio.sleep(0)
    if max(len(raw), len(gold)) > MAX_QUICK:
        right, wanted = await asyncio.to_thread(_gold, gold)
        if allowed is not None and await asyncio.to_thread(_near, right, raw, allowed):
            return True
        return await _leave(right, raw, pool)
    right, wanted = _gold(gold)
    await asyncio.sleep(0)
    found = read(raw)
    await asyncio.sleep(0)
    if allowed is not None and near(wanted, found, allowed):
        return True
    verdict = same(wanted, found)
    return await pool.ask_async(right, raw) if verdict is None and pool is not None else verdict


async def _declared(text: str) -> str | None:
    return declared(text) if len(text) <= MAX_QUICK_TEXT else await asyncio.to_thread(declared, text)


def _answer(raw: str) -> Answer | None:
    key = key_of(raw)
    return Answer(raw, key) if key else None


def _gold(gold: str) -> tuple[str, Value]:
    """A gold that reads as a value is itself the answer; another may be a solution that declares it."""
    value = read(gold)
    raw = declared(gold) if value.kind in ("text", "opaque") else None
    return (gold, value) if raw is None else (raw, read(raw))


def _whole(raw: str) -> bool:
    """Whether an answer is a bare whole number; two of those are the same or they are not."""
    return raw.removeprefix("-").isdecimal() and raw.isascii()


def _decided(a: Answer, b: Answer) -> bool | None:
    if a.key == b.key or (_whole(a.raw) and _whole(b.raw)):
        return a.key == b.key
    return same(read(a.raw), read(b.raw))


async def _leave(a: str, b: str, pool: MathPool | None) -> bool | None:
    """Two answers, of which one is long, compared by the pool, or in a thread where it takes no such."""
    if pool is not None and max(len(a), len(b)) <= MAX_QUESTION:
        return await pool.ask_async(a, b)
    return await asyncio.to_thread(lambda: same(read(a), read(b)))


def _near(a: str, b: str, allowed: Fraction) -> bool:
    return near(read(a), read(b), allowed)
