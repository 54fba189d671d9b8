"""The verifiable reward: whether the reply's answer is the right one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scorers.answers import verify
from scorers.mathpool import MathPool
from training.types import Completion, Row

__all__ = ["Correct"]


@dataclass(frozen=True, slots=True)
class Correct:
    """1.0 where `scorers.answers.verify`, with which serving votes, finds the gold answer; else 0.0.

    What the grader can't decide is 0.0: a doubtful answer must earn nothing. So is a reply
    that was cut off, whatever stands in it. None for a row without a gold answer.
    """

    pool: MathPool | None = None

    def __call__(self, row: Row, completions: Sequence[Completion]) -> list[float | None]:
        """See `training.types.Reward`."""
        return [None if row.gold is None else self._one(each, row.gold) for each in completions]

    def _one(self, completion: Completion, gold: str) -> float:
        return float(completion.finished and verify(completion.answer, gold, self.pool) is True)
