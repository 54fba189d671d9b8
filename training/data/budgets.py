"""The budget that a problem is asked with, so that the model learns to keep the gateway's levels."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.prompts import LEVELS, Level
from training.types import NO_BUDGET, Problem

__all__ = ["BudgetSampler"]


@dataclass(frozen=True, slots=True)
class BudgetSampler:
    """Draws a problem's level by `weights`; the same seed, epoch and problem always give the same level.

    All replies of a group share their level, so that their rewards can be compared. General problems have no
    budget. Raises ValueError for weights that name no level or sum to 0.
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

    def level(self, problem: Problem, epoch: int) -> str | None:
        """Return the name of the level to ask with; None for no budget."""
        if problem.general:
            return None
        names = sorted(self.weights)  # the order in which a file gives them must not matter
        rng = random.Random(f"{self.seed}/{epoch}/{problem.id}")
        (name,) = rng.choices(names, [self.weights[name] for name in names])
        return None if name == NO_BUDGET else name
