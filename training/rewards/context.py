"""The context of rewards: everything that they need beside a problem and its replies."""

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
    """A reward can't be made; the message names it and what is missing."""


@dataclass(frozen=True, slots=True)
class RewardContext:
    """The context of one run; `dataclasses.replace` makes the next one, as where the length limit grows.

    - `markup` is how the model writes its thinking.
    - `pool` holds the grader's worker processes. Without it, what needs math-verify stays undecided.
    - `levels` and `context` (tokens) give each budget's limit. A reply may pass its budget by the part
      `budget_slack` of it before the penalty is full.
    - `max_tokens` is the length limit of a reply. The overlong penalty grows in the last `overlong_cache`
      tokens before it.
    - `identify` tells the language of long prose.
    - `min_share` is the share of its group that a majority must hold.
    - `judge` grades for "rubric".
    - `preference` is the model that "preference" asks; `preference_centre` is the score that it maps to 0.5.
    - `sandbox` runs the code for "tests", `sandbox_workers` programs at a time. Without one the reward opens
      its own.
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
