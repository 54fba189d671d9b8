"""What the rewards of a reinforcement-learning stage need, from its settings."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace

from training.config import RlTable, TrainConfig
from training.rewards import RewardContext
from training.rewards.language import langid
from training.rewards.rubric import Judge
from training.sandbox import open_sandbox

__all__ = ["stage_reward_context", "with_token_limit"]


def stage_reward_context(
    config: TrainConfig, table: RlTable, kinds: Collection[str], setting: RewardContext
) -> RewardContext:
    """What rows with the rewards `kinds` need, and no more: a sandbox only for "tests", and so on.

    `setting` brings what the stage has made itself. A judge's key is the environment's THINKGATE_KEY.
    """
    judge = table.judge
    return replace(
        setting,
        markup=config.family.markup,
        levels=config.budgets,
        overlong_cache=table.overlong_cache,
        budget_slack=table.budget_slack,
        min_share=table.min_share,
        identify=langid() if "language" in table.rewards else None,
        sandbox=open_sandbox() if "tests" in kinds else None,
        judge=Judge(judge.url, judge.model, os.environ.get("THINKGATE_KEY"), judge.effort) if judge else None,
    )


def with_token_limit(setting: RewardContext, limit: int) -> RewardContext:
    """The setting while replies may have `limit` tokens."""
    return replace(setting, max_tokens=limit, overlong_cache=min(setting.overlong_cache, limit // 4))
