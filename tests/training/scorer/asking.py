"""Samples of a policy, made up for tests."""

from __future__ import annotations

from training.scorer.samples import LabelledProblem, LabelledSample
from training.types import Problem

__all__ = ["LOW", "WORKED", "asked", "row"]

WORKED = "3+6=9\n2+5=7\n1+4=5"
LOW = "9 7 5"


def row(question: str = "What is 123+456?", gold: str = "579") -> Problem:
    """An addition with its worked chains."""
    return Problem("one", question, gold, source="additions", extra={"chains": {"low": LOW, "high": WORKED}})


def asked(
    *answers: str, thinking: str = WORKED, budget: str | None = "high", finished: bool = True
) -> LabelledProblem:
    """The addition with these answers, labelled."""
    replies = (
        LabelledSample(thinking, answer, finished and answer == "579", finished, 5) for answer in answers
    )
    return LabelledProblem(row(), budget, tuple(replies))
