"""Which of a teacher's right replies are fit to be imitated."""

from __future__ import annotations

import re
from collections import Counter

from training.rewards.language import Language
from training.types import Completion, Problem

__all__ = ["is_fit_to_imitate", "is_repetitive"]

_SHORT = 40  # words up to which a text is too short to call it repetitive
_TAG = re.compile(r"</?\w*think\w*>|<\|[^|>]*\|>")


def is_fit_to_imitate(row: Problem, thinking: str, answer: str, budget: str | None) -> bool:
    """Whether a reply obeys its budget's form, doesn't loop, and stays in the question's language.

    R1's cold start keeps readable chains only: no mixed languages, no long-winded loops
    (arXiv:2501.12948, section 2.3.1). No tag may stand inside what becomes text to imitate.
    """
    if not answer.strip() or _TAG.search(thinking + answer):
        return False
    if budget == "off" and thinking.strip():
        return False
    if is_repetitive(thinking):
        return False
    completion = Completion(thinking + answer, (), thinking, answer, 0, True, budget)
    (consistency,) = Language(None)(row, [completion])
    return consistency is None or consistency >= 0.5


def is_repetitive(text: str, size: int = 4, most: float = 0.3) -> bool:
    """Whether a long text says the same over and over: more than `most` of its `size`-grams are repeats."""
    words = text.split()
    if len(words) < _SHORT:
        return False
    grams = Counter(zip(*(words[start:] for start in range(size)), strict=False))
    total = sum(grams.values())
    return (total - len(grams)) / total > most
