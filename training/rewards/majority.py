"""The majority reward of TTRL (arXiv:2504.16084): the most frequent answer counts as correct."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scorers.answers import equivalent, extract
from scorers.grader.pool import WorkerPool
from scorers.grouping import Grouper
from scorers.types import Sample
from training.types import Completion, Problem

__all__ = ["Majority"]


@dataclass(frozen=True, slots=True)
class Majority:
    """1.0 for the replies in the largest group of equal answers, else 0.0.

    It is for problems without a gold answer. Groups are those of serving's votes. Truncated replies and
    replies without an answer have no vote.

    All rewards are None where nobody knows the correct answer: where the largest group holds less than
    `min_share` of all replies or only one reply, or where another group is as large.
    """

    min_share: float = 0.5
    pool: WorkerPool | None = None

    def __call__(self, problem: Problem, completions: Sequence[Completion]) -> list[float | None]:
        """See `training.types.Reward`."""
        grouper = Grouper(lambda first, new: equivalent(first, new, self.pool))
        for index, completion in enumerate(completions):
            finish = "stop" if completion.finished else "length"
            grouper.add(Sample(index, completion.answer, finish_reason=finish), extract(completion.answer))
        groups = [group.members for group in grouper.groups]
        leading = groups[0] if groups else ()
        tied = len(groups) > 1 and len(groups[1]) == len(leading)
        if len(leading) < max(2, self.min_share * len(completions)) or tied:
            return [None] * len(completions)
        return [float(index in leading) for index in range(len(completions))]
