"""The verifiable reward: whether the reply's answer is the right one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scorers.answers import verify
from scorers.grader.pool import WorkerPool
from training.types import Completion, Problem

__all__ = ["Correct"]


@dataclass(frozen=True, slots=True)
class Correct:
    """1.0 where `scorers.answers.verify`, with which serving votes, finds the gold answer; else 0.0.

    Where the row states a tolerance, as near as that to the gold.
    What the grader can't decide is 0.0: a doubtful answer must earn nothing. So is a reply
    that was cut off, whatever stands in it. None for a row without a gold answer.
    """

    pool: WorkerPool | None = None

    def __call__(self, row: Problem, completions: Sequence[Completion]) -> list[float | None]:
        """See `training.types.Reward`."""
        if row.gold is None:
            return [None] * len(completions)
        return [self._one(each, row.gold, row.tolerance) for each in completions]

    def _one(self, completion: Completion, gold: str, tolerance: float | None) -> float:
        if not completion.finished:
            return 0.0
        return float(verify(completion.answer, gold, self.pool, tolerance=tolerance) is True)
