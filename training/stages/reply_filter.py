"""Decides which of a teacher's correct replies are fit to be imitated."""

from __future__ import annotations

import re
from collections import Counter

from training.rewards.language import Language
from training.types import Completion, Problem

__all__ = ["is_fit_to_imitate", "is_repetitive"]

_SHORT = 40  # words up to which a text is too short to call it repetitive
_TAG = re.compile(r"</?\w*think\w*>|<\|[^|>]*\|>")


def is_fit_to_imitate(problem: Problem, thinking: str, answer: str, budget: str | None) -> bool:
    """Return whether a reply has its budget's form, doesn't loop, and stays in the question's language.

    R1's cold start uses readable chains only: no mixed languages, no long-winded loops (arXiv:2501.12948,
    section 2.3.1). Text to imitate must hold no tag.
    """
    if not answer.strip() or _TAG.search(thinking + answer):
        return False
    if budget == "off" and thinking.strip():
        return False
    if is_repetitive(thinking):
        return False
    completion = Completion(thinking + answer, (), thinking, answer, 0, True, budget)
    (consistency,) = Language(None)(problem, [completion])
    return consistency is None or consistency >= 0.5


def is_repetitive(text: str, size: int = 4, max_share: float = 0.3) -> bool:
    """Return whether more than `max_share` of a long text's `size`-grams are repeats."""
    words = text.split()
    if len(words) < _SHORT:
        return False
    grams = Counter(zip(*(words[start:] for start in range(size)), strict=False))
    total = sum(grams.values())
    return (total - len(grams)) / total > max_share
