"""Rewards: what a reply is worth.

To add a reward, write one function (see `training.types.Reward`) and one line in `REWARDS` that gives it a
name. Problems name the reward that judges their replies. Where the reward needs settings, it is a frozen
dataclass with `__call__`, which its line makes from a `RewardContext`.

Shaping rewards are added to that main reward, by weight and for all problems alike. They have a line in
`SHAPING` instead, and their name stands in `training.types.SHAPING_REWARDS` too, for the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from training.rewards.checks import checks
from training.rewards.context import RewardContext, RewardError
from training.rewards.correctness import Correct
from training.rewards.format import Format
from training.rewards.language import Language
from training.rewards.length import BudgetPenalty, LengthReward, OverlongPenalty
from training.rewards.majority import Majority
from training.rewards.plan import GroupRewards, RewardPlan, Shaping, as_shaping
from training.rewards.preference import Preference
from training.rewards.rubric import Rubric
from training.rewards.unit_tests import UnitTests
from training.sandbox import SandboxError, open_sandbox
from training.types import Reward

__all__ = [
    "REWARDS",
    "SHAPING",
    "GroupRewards",
    "RewardContext",
    "RewardError",
    "RewardPlan",
    "reward_plan",
]


def _tests(context: RewardContext) -> Reward:
    try:
        sandbox = context.sandbox or open_sandbox()
    except SandboxError as error:
        raise RewardError(f"the reward 'tests' runs code in a sandbox only: {error}") from error
    return UnitTests(sandbox, context.sandbox_workers)


def _rubric(context: RewardContext) -> Reward:
    if context.judge is None:
        raise RewardError("the reward 'rubric' needs a judge: the URL and the name of a model")
    return Rubric(context.judge)


def _preference(context: RewardContext) -> Reward:
    if context.preference is None:
        raise RewardError("the reward 'preference' needs a preference model")
    return Preference(context.preference, context.preference_centre)


REWARDS: Mapping[str, Callable[[RewardContext], Reward]] = {
    "checks": lambda context: checks,
    "correct": lambda context: Correct(context.pool),
    "majority": lambda context: Majority(context.min_share, context.pool),
    "preference": _preference,
    "rubric": _rubric,
    "tests": _tests,
}
"""Main rewards by the names that problems give. RewardError where the context lacks what one needs."""

SHAPING: Mapping[str, Callable[[RewardContext], Shaping]] = {
    "format": lambda context: as_shaping(Format(context.markup)),
    "language": lambda context: as_shaping(Language(context.identify)),
    "overlong": lambda context: OverlongPenalty(context.max_tokens, context.overlong_cache),
    "short": lambda context: LengthReward(),
    "budget": lambda context: BudgetPenalty(context.levels, context.context, context.budget_slack),
}
"""Shaping rewards by the names that a configuration gives weights to."""


def reward_plan(
    context: RewardContext,
    kinds: Iterable[str],
    weights: Mapping[str, float],
    *,
    main_weight: float = 1.0,
    leave_out_unfinished: bool = False,
) -> RewardPlan:
    """Return the plan of a run whose problems name the rewards `kinds`; `weights` are the shaping rewards'.

    A reward of weight 0 still judges and appears in the log. Raises RewardError for an unknown name, or where
    the context lacks what a reward needs.
    """
    kinds = set(kinds)
    for names, known in ((kinds, REWARDS), (set(weights), SHAPING)):
        if unknown := sorted(names - set(known)):
            raise RewardError(f"no reward is called {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return RewardPlan(
        mains={name: REWARDS[name](context) for name in sorted(kinds)},
        shaping={name: (weight, SHAPING[name](context)) for name, weight in weights.items()},
        main_weight=main_weight,
        leave_out_unfinished=leave_out_unfinished,
    )
