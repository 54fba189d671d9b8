"""Whether questions of the evaluation stand in the training data.

Two questions overlap where they are equal, but for case, spaces and punctuation, or share
13 words in a row (as GPT-3 was checked, arXiv:2005.14165, appendix C). Numbers count as words.
Phrases that many questions share, as a task's fixed instructions, say nothing and are passed over.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from training.types import Problem

__all__ = ["Overlap", "clean", "overlaps"]

_WORD = re.compile(r"[^\W_]+|[^\w\s]")  # signs are words of their own here, and dropped in running text
_SIGNS_OF_MATHS = frozenset("+-*/=<>^%")


@dataclass(frozen=True, slots=True)
class Overlap:
    """A training row and an evaluation row that overlap, and by what."""

    trained: str
    evaluated: str
    kind: Literal["equal", "phrase"]
    text: str


def overlaps(
    training: Iterable[Problem], evaluation: Iterable[Problem], *, size: int = 13, common: int = 3
) -> list[Overlap]:
    """One overlap at most for each training row, in their order.

    `size` is the words of a phrase; phrases in more than `common` different questions of either side
    are passed over.
    """
    asked = _distinct(evaluation)
    learnt = [(row.id, _words(row.question)) for row in training]
    phrases: dict[tuple[str, ...], str] = {}
    spread: Counter[tuple[str, ...]] = Counter()
    for words, name in asked.items():
        for phrase in set(_phrases(words, size)):
            phrases.setdefault(phrase, name)
            spread[phrase] += 1
    seen = Counter(
        phrase
        for words in {words for _, words in learnt}
        for phrase in set(_phrases(words, size)) & phrases.keys()
    )
    telling = {phrase for phrase in phrases if spread[phrase] <= common and seen[phrase] <= common}
    return list(_found(learnt, asked, phrases, telling, size))


def clean(training: Sequence[Problem], evaluation: Iterable[Problem]) -> list[Problem]:
    """The training rows without those that overlap with the evaluation."""
    kept, asked = list(training), list(evaluation)
    # Again, because a phrase that many rows shared may tell when most of those are gone.
    while dropped := {overlap.trained for overlap in overlaps(kept, asked)}:
        kept = [row for row in kept if row.id not in dropped]
    return kept


def _found(
    learnt: Iterable[tuple[str, tuple[str, ...]]],
    asked: dict[tuple[str, ...], str],
    phrases: dict[tuple[str, ...], str],
    telling: set[tuple[str, ...]],
    size: int,
) -> Iterator[Overlap]:
    for name, words in learnt:
        if words in asked:
            yield Overlap(name, asked[words], "equal", " ".join(words))
        elif phrase := next((each for each in _phrases(words, size) if each in telling), None):
            yield Overlap(name, phrases[phrase], "phrase", " ".join(phrase))


def _distinct(rows: Iterable[Problem]) -> dict[tuple[str, ...], str]:
    """Each different question's words, with the id of the first row that asks it."""
    found: dict[tuple[str, ...], str] = {}
    for row in rows:
        if words := _words(row.question):
            found.setdefault(words, row.id)
    return found


def _words(text: str) -> tuple[str, ...]:
    """The words in small letters; of signs only those that make another sum of the same numbers."""
    found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return tuple(word for word in found if word[0].isalnum() or word in _SIGNS_OF_MATHS)


def _phrases(words: tuple[str, ...], size: int) -> Iterator[tuple[str, ...]]:
    return (words[start : start + size] for start in range(len(words) - size + 1))
