"""Which budget a row is asked with, so that the model learns to obey the gateway's levels."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.prompts import LEVELS, Level, policy_prompt
from policies.thinking import Markup
from training.types import NO_BUDGET, Problem

__all__ = ["BudgetSampler"]


@dataclass(frozen=True, slots=True)
class BudgetSampler:
    """Draws a level for a row by `weights`, the same for the same (seed, epoch, row).

    All replies of a group share their level, so that their rewards can be compared. General
    rows are asked without. Raises ValueError for weights that name no level or sum to 0.
    """

    weights: Mapping[str, float]
    seed: int = 0
    levels: Mapping[str, Level] = field(default_factory=lambda: LEVELS)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.weights) - {*self.levels, NO_BUDGET}):
            raise ValueError(
                f"no budget is called {unknown[0]!r}; there are {', '.join(self.levels)}, {NO_BUDGET}"
            )
        if min(self.weights.values(), default=0) < 0 or not sum(self.weights.values()):
            raise ValueError("the budgets' weights must be 0 or more, and one above 0")

    def level(self, row: Problem, epoch: int) -> str | None:
        """The name of the level to ask with; None: without a budget."""
        if row.general:
            return None
        names = sorted(self.weights)  # the order in which a file gives them must not matter
        chance = random.Random(f"{self.seed}/{epoch}/{row.id}")
        (drawn,) = chance.choices(names, [self.weights[name] for name in names])
        return None if drawn == NO_BUDGET else drawn

    def prompt(self, level: str | None, markup: Markup, *, teach: bool) -> str | None:
        """The system prompt that asks for a level, word for word the gateway's; None without one."""
        return None if level is None else policy_prompt(self.levels[level], markup, teach=teach)
