"""An addition problem with sampled replies, for tests."""

from __future__ import annotations

from training.scorer.samples import LabelledProblem, LabelledSample
from training.types import Problem

__all__ = ["LOW", "WORKED", "addition", "sampled"]

WORKED = "3+6=9\n2+5=7\n1+4=5"
LOW = "9 7 5"


def addition(question: str = "What is 123+456?", gold: str = "579") -> Problem:
    """Build an addition with its worked chains."""
    return Problem("one", question, gold, source="additions", extra={"chains": {"low": LOW, "high": WORKED}})


def sampled(
    *answers: str, thinking: str = WORKED, budget: str | None = "high", finished: bool = True
) -> LabelledProblem:
    """Build the addition with labelled replies that give these answers."""
    replies = (
        LabelledSample(thinking, answer, finished and answer == "579", finished, 5) for answer in answers
    )
    return LabelledProblem(addition(), budget, tuple(replies))
