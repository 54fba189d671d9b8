"""Length rewards: the overlong penalty, a preference for short correct replies, and the budget penalty."""

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

    It is 0 up to `limit - cache`, and falls linearly to -1 at the limit. `cache` is the paper's L_cache.
    """
    if length <= limit - cache:
        return 0.0
    return -1.0 if length >= limit else (limit - cache - length) / cache


def length_reward(lengths: Sequence[int], correct: Sequence[bool]) -> list[float]:
    """Return Kimi k1.5's length rewards (arXiv:2501.12599, section 2.3.3) of one question's replies.

    They fall linearly from 0.5 for the shortest reply to -0.5 for the longest. A wrong reply gets at most 0.
    If all replies are equally long, all rewards are 0.
    """
    if not lengths:
        return []
    shortest, longest = min(lengths), max(lengths)
    if shortest == longest:
        return [0.0] * len(lengths)
    by_length = [0.5 - (length - shortest) / (longest - shortest) for length in lengths]
    return [
        value if is_correct else min(0.0, value) for value, is_correct in zip(by_length, correct, strict=True)
    ]


def budget_penalty(thinking_tokens: int, limit: int, slack: float) -> float:
    """Return the penalty for thinking past the limit, in [-1, 0].

    It is 0 up to the limit, and falls linearly to -1 at `slack` * limit tokens above it. L1's LCPO-Max
    (arXiv:2503.04697) has the same one-sided limit, but multiplies the reward by it. Short thinking costs
    nothing, because a budget is a maximum and not a target.
    """
    if thinking_tokens <= limit:
        return 0.0
    excess, allowed_excess = thinking_tokens - limit, slack * limit
    return -1.0 if excess >= allowed_excess else -excess / allowed_excess


@dataclass(frozen=True, slots=True)
class OverlongPenalty:
    """Penalises each reply by `overlong_penalty`."""

    limit: int
    cache: int

    def __call__(
        self, problem: Problem, completions: Sequence[Completion], main: Sequence[float | None]
    ) -> list[float | None]:
        """See `training.rewards.plan.Shaping`."""
        return [overlong_penalty(len(reply.ids), self.limit, self.cache) for reply in completions]


@dataclass(frozen=True, slots=True)
class LengthReward:
    """Rewards a group by `length_reward`.

    A main reward over 0.5 counts as correct. A reply without a main reward gets no length reward.
    """

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
    """Penalises each reply by `budget_penalty`, at the thinking limit of its level.

    A reply without a budget, or whose level has no limit, gets no penalty (None).
    """

    levels: Mapping[str, Level] = field(default_factory=lambda: LEVELS)
    context: int | None = None
    slack: float = 0.25

    def __call__(
        self, problem: Problem, completions: Sequence[Completion], main: Sequence[float | None]
    ) -> list[float | None]:
        """See `training.rewards.plan.Shaping`."""
        return [self._penalty(reply) for reply in completions]

    def _penalty(self, completion: Completion) -> float | None:
        level = None if completion.budget is None else self.levels.get(completion.budget)
        limit = None if level is None else thinking_limit(level, self.context)
        return None if limit is None else budget_penalty(completion.thinking_tokens, limit, self.slack)
