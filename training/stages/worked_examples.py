"""Examples that come with the problems: their worked chains and written answers."""

from __future__ import annotations

from collections.abc import Sequence

from training.config import SftTable
from training.data.budgets import BudgetSampler
from training.data.chains import LENGTHS
from training.data.prompts import Example, Prompter
from training.stages.stage_data import StageData
from training.types import Problem

__all__ = ["worked_examples"]


def worked_examples(
    data: StageData[SftTable], prompter: Prompter, problems: Sequence[Problem], general: Sequence[Problem]
) -> list[Example]:
    """Return the problems' own chains, each at a budget drawn for it, and general problems' plain answers.

    A problem without a chain teaches only to answer at once; one without an answer teaches nothing.
    """
    budgets = BudgetSampler(data.table.budgets, data.seed, data.config.budgets)
    examples = []
    for problem in problems:
        budget = budgets.level(problem, 0)
        if problem.gold is None or (budget != "off" and "chains" not in problem.extra):
            continue
        prompt = prompter.prompt(problem, budget)
        thinking = "" if budget == "off" else problem.extra["chains"][LENGTHS[budget or "high"]]
        target = prompter.target(prompt, thinking, problem.gold)
        if len(target) <= data.table.max_tokens:
            examples.append(Example(prompt, target))
    for problem in general:
        if "answer" in problem.extra:
            prompt = prompter.prompt(problem, None)
            examples.append(Example(prompt, prompter.target(prompt, "", problem.extra["answer"])))
    return examples
