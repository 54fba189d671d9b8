"""What rewards need beside a row and its replies, gathered in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.prompts import LEVELS, Level
from policies.thinking import Markup
from scorers.grader.pool import WorkerPool
from training.rewards.language import Identify
from training.rewards.preference import PreferenceModel
from training.rewards.rubric import Judge
from training.sandbox import Sandbox

__all__ = ["RewardContext", "RewardError"]


class RewardError(Exception):
    """A reward can't be had; the message names it and what is missing."""


@dataclass(frozen=True, slots=True)
class RewardContext:
    """One run's setting; `dataclasses.replace` makes the next one, as where the length limit grows.

    `markup` is how the model writes its thinking, `pool` the grader's worker processes (without
    them what needs math-verify stays undecided). `levels` and `context` (tokens) give each
    budget's limit. `max_tokens` is the length limit of a reply, `overlong_cache` the stretch before
    it in which the overlong punishment grows, both in tokens. `budget_slack` is the part of a
    budget by which it may be passed before the punishment is whole. `identify` tells the language
    of long prose. `min_share` is what a majority must hold of its group. `judge` grades for "rubric";
    `preference` is the model that "preference" asks, `preference_centre` the score it takes for middling.
    `sandbox` runs the code that "tests" judges, `sandbox_workers` programs at a time;
    where it isn't given one is opened.
    """

    markup: Markup = Markup()
    pool: WorkerPool | None = None
    levels: Mapping[str, Level] = field(default_factory=lambda: LEVELS)
    context: int | None = None
    max_tokens: int = 1024
    overlong_cache: int = 256
    budget_slack: float = 0.25
    identify: Identify | None = None
    min_share: float = 0.5
    judge: Judge | None = None
    preference: PreferenceModel | None = None
    preference_centre: float = 0.0
    sandbox: Sandbox | None = None
    sandbox_workers: int = 4
