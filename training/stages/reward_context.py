"""The context of a stage's rewards, from its settings."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace

from training.config import ConfigError, RlTable, TrainConfig
from training.rewards import SHAPING, RewardContext
from training.rewards.language import langid
from training.rewards.rubric import Judge
from training.sandbox import open_sandbox

__all__ = ["check_reward_names", "stage_reward_context", "with_token_limit"]


def check_reward_names(config: TrainConfig) -> None:
    """Raise ConfigError for a shaping reward that doesn't exist."""
    for heading, table in config.tables():
        if isinstance(table, RlTable) and (unknown := sorted(set(table.rewards) - set(SHAPING))):
            raise ConfigError(
                f"{heading}.rewards: {unknown[0]!r} is no shaping reward; there are {', '.join(SHAPING)}"
            )


def stage_reward_context(
    config: TrainConfig, table: RlTable, rewards: Collection[str], context: RewardContext
) -> RewardContext:
    """Return what the problems' `rewards` need, and no more: a sandbox only for "tests", and so on.

    `context` holds what the stage has made itself. A judge's key is the environment's THINKGATE_KEY.
    """
    judge = table.judge
    return replace(
        context,
        markup=config.family.markup,
        levels=config.budgets,
        overlong_cache=table.overlong_cache,
        budget_slack=table.budget_slack,
        min_share=table.min_share,
        identify=langid() if "language" in table.rewards else None,
        sandbox=open_sandbox() if "tests" in rewards else None,
        judge=Judge(judge.url, judge.model, os.environ.get("THINKGATE_KEY"), judge.budget) if judge else None,
    )


def with_token_limit(context: RewardContext, limit: int) -> RewardContext:
    """Return the context for completions of at most `limit` tokens."""
    return replace(context, max_tokens=limit, overlong_cache=min(context.overlong_cache, limit // 4))
