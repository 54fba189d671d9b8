"""Additions with worked chains of thought, and small tasks without reasoning, for the tiny model.

The chain is the schoolbook's, column by column from the right, at two lengths. "low" notes only the total of
each column with its carry; "high" works each column out. Every addition has both in `extra["chains"]`, so the
problem itself teaches each level.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from training.types import Problem

__all__ = ["additions", "chain", "errands"]

_WORDS = ("apple", "bird", "cloud", "door", "egg", "fish", "goat", "hat", "ink", "jam", "kite", "leaf")


def chain(a: int, b: int, length: str) -> str:
    """Return the worked sum of two whole numbers; `length` is "low" or "high"."""
    steps: list[str] = []
    carry = 0
    for x, y in zip(_digits(a, b), _digits(b, a), strict=True):
        total = x + y + carry
        carried = f"+{carry}" if carry else ""
        steps.append(str(total) if length == "low" else f"{x}+{y}{carried}={total}")
        carry = total // 10
    return " ".join(steps) if length == "low" else "\n".join(steps)


def additions(seed: str, *, digits: int = 3) -> Iterator[Problem]:
    """Yield sums of two numbers with so many digits, without end; the same seed gives the same sums."""
    rng = random.Random(f"additions {seed}")
    lowest, highest = 10 ** (digits - 1), 10**digits - 1
    while True:
        a, b = rng.randint(lowest, highest), rng.randint(lowest, highest)
        chains = {length: chain(a, b, length) for length in ("low", "high")}
        yield Problem(
            id=f"{a}+{b}",
            question=f"What is {a}+{b}?",
            gold=str(a + b),
            source="additions",
            extra={"chains": chains},
        )


def errands(seed: str) -> Iterator[Problem]:
    """Yield small tasks without reasoning that code can check: the tiny model's general ability."""
    rng = random.Random(f"errands {seed}")
    while True:
        word, count = rng.choice(_WORDS), rng.randint(2, 5)
        kind = rng.choice(("repeat", "list"))
        if kind == "repeat":
            question, answer = f"Say {word} {count} times.", " ".join([word] * count)
        else:
            words = rng.sample(_WORDS, count)
            question, answer = f"Join with commas: {' '.join(words)}", ", ".join(words)
        yield Problem(
            id=question,
            question=question,
            gold=answer,
            reward="preference",
            source=f"errands/{kind}",
            general=True,
            extra={"answer": answer},
        )


def _digits(number: int, other: int) -> list[int]:
    """Return the digits from the right, with zeros up to the longer number's length."""
    width = max(len(str(number)), len(str(other)))
    return [int(digit) for digit in reversed(str(number).zfill(width))]
