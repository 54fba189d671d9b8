"""Replies to imitate that the rows bring along: their worked chains and written answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from training.config import TrainConfig
from training.data.budgets import BudgetSampler
from training.data.chains import LENGTHS
from training.data.prompts import Example, Prompter
from training.types import Problem

__all__ = ["StageSettings", "worked_examples"]


class StageSettings(Protocol):
    """A stage is needed: a `training.stages.stage.Stage` or a `training.stages.stage_data.StageData`."""

    @property
    def config(self) -> TrainConfig:
        """The run's configuration."""

    @property
    def table(self) -> Any:
        """The stage's own settings."""

    @property
    def seed(self) -> int:
        """The stage's seed."""


def worked_examples(
    stage: StageSettings, prompter: Prompter, rows: Sequence[Problem], general: Sequence[Problem]
) -> list[Example]:
    """The rows' own chains, each at a budget drawn for it; general rows answer at once, as they should.

    A row whose chain can't be written teaches only to answer at once; one without an answer, nothing.
    """
    budgets = BudgetSampler(stage.table.budgets, stage.seed, stage.config.budgets)
    examples = []
    for row in rows:
        budget = budgets.level(row, 0)
        if row.gold is None or (budget != "off" and "chains" not in row.extra):
            continue
        prompt = prompter.prompt(row, budget)
        thinking = "" if budget == "off" else row.extra["chains"][LENGTHS[budget or "high"]]
        target = prompter.target(prompt, thinking, row.gold)
        if len(target) <= stage.table.max_tokens:
            examples.append(Example(prompt, target))
    for row in general:
        if "answer" in row.extra:
            prompt = prompter.prompt(row, None)
            examples.append(Example(prompt, prompter.target(prompt, "", row.extra["answer"])))
    return examples
