"""Length rewards: the overlong penalty, a preference for short right replies, and the budget penalty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policies.prompts import LEVELS, Level, thinking_limit
from training.types import Completion, Problem

__all__ = [
    "BudgetPenalty",
    "LengthReward",
    "OverlongPenalty",
    "budget_penalty",
    "length_reward",
    "overlong_penalty",
]


def overlong_penalty(length: int, limit: int, cache: int) -> float:
    """Return DAPO's soft overlong penalty (arXiv:2503.14476, eq. 13), in [-1, 0]; all lengths in tokens.

    It is 0 up to `limit - cache`, and falls in proportion to -1 at the limit.
    """
    if length <= limit - cache:
        return 0.0
    return -1.0 if length >= limit else (limit - cache - length) / cache


def length_reward(lengths: Sequence[int], right: Sequence[bool]) -> list[float]:
    """Return Kimi k1.5's length rewards (arXiv:2501.12599, section 2.3.3) of one question's replies.

    They go from 0.5 for the shortest to -0.5 for the longest of the group. A wrong reply never gains by being
    short. All are 0.0 where all replies are equally long.
    """
    if not lengths:
        return []
    shortest, longest = min(lengths), max(lengths)
    if shortest == longest:
        return [0.0] * len(lengths)
    preferred = [0.5 - (length - shortest) / (longest - shortest) for length in lengths]
    return [value if ok else min(0.0, value) for value, ok in zip(preferred, right, strict=True)]


def budget_penalty(thought: int, limit: int, slack: float) -> float:
    """Return the penalty for thinking past the limit, in [-1, 0].

    It is 0 within the limit, and -1 from `slack` * limit above it. This is the one-sided limit of L1's
    LCPO-Max (arXiv:2503.04697), as an addend instead of a factor. It doesn't pull towards the limit from
    below, because a budget is a maximum and not an aim.
    """
    if thought <= limit:
        return 0.0
    room = slack * limit
    return -1.0 if thought - limit >= room else -(thought - limit) / room


@dataclass(frozen=True, slots=True)
class OverlongPenalty:
    """The `overlong_penalty` of each whole reply."""

    limit: int
    cache: int

    def __call__(
        self, problem: Problem, completions: Sequence[Completion], main: Sequence[float | None]
    ) -> list[float | None]:
        """See `training.rewards.plan.Shaping`."""
        return [overlong_penalty(len(reply.ids), self.limit, self.cache) for reply in completions]


@dataclass(frozen=True, slots=True)
class LengthReward:
    """The `length_reward` of the group. A main reward over 0.5 means right; where it is None, so is this."""

    def __call__(
        self, problem: Problem, completions: Sequence[Completion], main: Sequence[float | None]
    ) -> list[float | None]:
        """See `training.rewards.plan.Shaping`."""
        indices = [index for index, value in enumerate(main) if value is not None]
        lengths = [len(completions[index].ids) for index in indices]
        rewards = dict(
            zip(indices, length_reward(lengths, [(main[index] or 0) > 0.5 for index in indices]), strict=True)
        )
        return [rewards.get(index) for index in range(len(completions))]


@dataclass(frozen=True, slots=True)
class BudgetPenalty:
    """The `budget_penalty` of each reply's thinking at its level's limit.

    None for a reply without a budget, and for a level without a limit.
    """

    levels: Mapping[str, Level] = field(default_factory=lambda: LEVELS)
    context: int | None = None
    slack: float = 0.25

    def __call__(
        self, problem: Problem, completions: Sequence[Completion], main: Sequence[float | None]
    ) -> list[float | None]:
        """See `training.rewards.plan.Shaping`."""
        return [self._one(reply) for reply in completions]

    def _one(self, completion: Completion) -> float | None:
        level = None if completion.budget is None else self.levels.get(completion.budget)
        limit = None if level is None else thinking_limit(level, self.context)
        return None if limit is None else budget_penalty(completion.thought, limit, self.slack)
