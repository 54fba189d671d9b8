"""What a reply is worth. To add a reward: one line in `REWARDS`, or in `SHAPING`.

`REWARDS` judge whether a reply is right or good; a row names the one that judges its replies.
`SHAPING` ones are added to it by weight, for all rows alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from training.rewards.checks import checks
from training.rewards.context import RewardContext, RewardError
from training.rewards.correctness import Correct
from training.rewards.format import Format
from training.rewards.language import Language
from training.rewards.length import KimiLength, Obedience, SoftOverlong
from training.rewards.majority import Majority
from training.rewards.plan import Judged, RewardPlan, Shaping, shaped
from training.rewards.preference import Preference
from training.rewards.rubric import Rubric
from training.rewards.unit_tests import UnitTests
from training.sandbox import SandboxError, open_sandbox
from training.types import Reward

__all__ = ["REWARDS", "SHAPING", "Judged", "RewardContext", "RewardError", "RewardPlan", "reward_plan"]


def _tests(setting: RewardContext) -> Reward:
    try:
        sandbox = setting.sandbox or open_sandbox()
    except SandboxError as error:
        raise RewardError(f"the reward 'tests' runs code in a sandbox alone: {error}") from error
    return UnitTests(sandbox, setting.sandbox_workers)


def _rubric(setting: RewardContext) -> Reward:
    if setting.judge is None:
        raise RewardError("the reward 'rubric' needs a judge: the URL and the name of a model")
    return Rubric(setting.judge)


def _preference(setting: RewardContext) -> Reward:
    if setting.preference is None:
        raise RewardError("the reward 'preference' needs a preference model")
    return Preference(setting.preference, setting.preference_centre)


REWARDS: Mapping[str, Callable[[RewardContext], Reward]] = {
    "checks": lambda setting: checks,
    "correct": lambda setting: Correct(setting.pool),
    "majority": lambda setting: Majority(setting.min_share, setting.pool),
    "preference": _preference,
    "rubric": _rubric,
    "tests": _tests,
}
"""The main rewards by the names that rows give; a factory raises RewardError where it misses something."""

SHAPING: Mapping[str, Callable[[RewardContext], Shaping]] = {
    "format": lambda setting: shaped(Format(setting.markup)),
    "language": lambda setting: shaped(Language(setting.identify)),
    "overlong": lambda setting: SoftOverlong(setting.max_tokens, setting.overlong_cache),
    "short": lambda setting: KimiLength(),
    "budget": lambda setting: Obedience(setting.levels, setting.context, setting.budget_slack),
}
"""The rewards that are added to the main one, by the names that a configuration gives weights to."""


def reward_plan(
    setting: RewardContext,
    kinds: Iterable[str],
    weights: Mapping[str, float],
    *,
    main_weight: float = 1.0,
    leave_out_unfinished: bool = False,
) -> RewardPlan:
    """The plan of a run whose rows name the rewards `kinds`; `weights` are the shaping rewards'.

    A weight of 0 still judges and logs. Raises RewardError for a name that isn't known, or a
    reward that can't be had.
    """
    kinds = set(kinds)
    for names, known in ((kinds, REWARDS), (set(weights), SHAPING)):
        if unknown := sorted(names - set(known)):
            raise RewardError(f"no reward is called {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return RewardPlan(
        mains={name: REWARDS[name](setting) for name in sorted(kinds)},
        shaping={name: (weight, SHAPING[name](setting)) for name, weight in weights.items()},
        main_weight=main_weight,
        leave_out_unfinished=leave_out_unfinished,
    )
