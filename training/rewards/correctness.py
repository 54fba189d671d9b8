"""The verifiable reward: whether the reply's answer is the correct one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scorers.answers import verify
from scorers.grader.pool import WorkerPool
from training.types import Completion, Problem

__all__ = ["Correct"]


@dataclass(frozen=True, slots=True)
class Correct:
    """1.0 where `scorers.answers.verify`, the grader of serving, finds the gold answer; else 0.0.

    If the problem states a tolerance, numbers within it are correct. An answer that the grader can't decide
    gets 0.0, because a doubtful answer must not pay. So does a truncated reply, whatever it says. A problem
    without a gold answer gets None.
    """

    pool: WorkerPool | None = None

    def __call__(self, problem: Problem, completions: Sequence[Completion]) -> list[float | None]:
        """See `training.types.Reward`."""
        if problem.gold is None:
            return [None] * len(completions)
        return [self._grade(completion, problem.gold, problem.tolerance) for completion in completions]

    def _grade(self, completion: Completion, gold: str, tolerance: float | None) -> float:
        if not completion.finished:
            return 0.0
        return float(verify(completion.answer, gold, self.pool, tolerance=tolerance) is True)
