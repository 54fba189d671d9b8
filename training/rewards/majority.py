"""TTRL (arXiv:2504.16084): the majority of the group's own replies stands for the right answer."""

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
    """1.0 for the replies in the largest class of equal answers, else 0.0.

    It is for questions without a gold answer.
    Classes are those that serving votes with; cut-off replies and replies without an answer have no vote.
    None for the whole group where the largest class holds less than `min_share` of all replies,
    one reply alone, or as many as another class: then nobody knows what is right.
    """

    min_share: float = 0.5
    pool: WorkerPool | None = None

    def __call__(self, row: Problem, completions: Sequence[Completion]) -> list[float | None]:
        """See `training.types.Reward`."""
        grouper = Grouper(lambda first, new: equivalent(first, new, self.pool))
        for place, each in enumerate(completions):
            finish = "stop" if each.finished else "length"
            grouper.add(Sample(place, each.answer, finish_reason=finish), extract(each.answer))
        classes = [group.members for group in grouper.groups]
        leading = classes[0] if classes else ()
        tied = len(classes) > 1 and len(classes[1]) == len(leading)
        if len(leading) < max(2, self.min_share * len(completions)) or tied:
            return [None] * len(completions)
        return [float(place in leading) for place in range(len(completions))]
