"""Contamination: questions of the evaluation that stand in the training data.

Two questions overlap where they are equal, but for case, spaces and punctuation, or share 13 words in a row.
GPT-3 was checked in this way (arXiv:2005.14165, appendix C). Numbers count as words. Phrases that many
questions share, as a task's fixed instructions, don't count.
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

_WORD = re.compile(r"[^\W_]+|[^\w\s]")  # a sign is a word here; `_words` drops most
_SIGNS_OF_MATHS = frozenset("+-*/=<>^%")


@dataclass(frozen=True, slots=True)
class Overlap:
    """The ids of a training problem and an evaluation problem that overlap, and the words they share."""

    trained: str
    evaluated: str
    kind: Literal["equal", "phrase"]
    text: str


def overlaps(
    training: Iterable[Problem], evaluation: Iterable[Problem], *, size: int = 13, common: int = 3
) -> list[Overlap]:
    """Return at most one overlap for each training problem, in their order.

    `size` is the number of words in a phrase. Phrases in more than `common` different questions of either
    side don't count.
    """
    evaluated = _distinct(evaluation)
    trained = [(problem.id, _words(problem.question)) for problem in training]
    phrases: dict[tuple[str, ...], str] = {}
    evaluation_counts: Counter[tuple[str, ...]] = Counter()
    for words, name in evaluated.items():
        for phrase in set(_phrases(words, size)):
            phrases.setdefault(phrase, name)
            evaluation_counts[phrase] += 1
    training_counts = Counter(
        phrase
        for words in {words for _, words in trained}
        for phrase in set(_phrases(words, size)) & phrases.keys()
    )
    rare = {
        phrase
        for phrase in phrases
        if evaluation_counts[phrase] <= common and training_counts[phrase] <= common
    }
    return list(_overlaps(trained, evaluated, phrases, rare, size))


def clean(training: Sequence[Problem], evaluation: Iterable[Problem]) -> list[Problem]:
    """Return the training problems without those that overlap with the evaluation."""
    problems, evaluation = list(training), list(evaluation)
    # Again, because a phrase that was common before the removal may be rare after it.
    while removed := {overlap.trained for overlap in overlaps(problems, evaluation)}:
        problems = [problem for problem in problems if problem.id not in removed]
    return problems


def _overlaps(
    trained: Iterable[tuple[str, tuple[str, ...]]],
    evaluated: dict[tuple[str, ...], str],
    phrases: dict[tuple[str, ...], str],
    rare: set[tuple[str, ...]],
    size: int,
) -> Iterator[Overlap]:
    for name, words in trained:
        if words in evaluated:
            yield Overlap(name, evaluated[words], "equal", " ".join(words))
        elif phrase := next((phrase for phrase in _phrases(words, size) if phrase in rare), None):
            yield Overlap(name, phrases[phrase], "phrase", " ".join(phrase))


def _distinct(problems: Iterable[Problem]) -> dict[tuple[str, ...], str]:
    """Map each different question's words to the id of the first problem that asks it."""
    names: dict[tuple[str, ...], str] = {}
    for problem in problems:
        if words := _words(problem.question):
            names.setdefault(words, problem.id)
    return names


def _words(text: str) -> tuple[str, ...]:
    """Return the words in lower case; of signs only those that make another sum of the same numbers."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return tuple(word for word in words if word[0].isalnum() or word in _SIGNS_OF_MATHS)


def _phrases(words: tuple[str, ...], size: int) -> Iterator[tuple[str, ...]]:
    return (words[start : start + size] for start in range(len(words) - size + 1))
