"""The cold start: verified chains of thought of a teacher, imitated. With another model, distillation.

Source: DeepSeek-R1, arXiv:2501.12948, section 2.3.1 (and 2.4 for distillation). The teacher is
the rows' own worked chains, an OpenAI-compatible endpoint (a gateway that votes among them), or the
model of the stage before, R1-Zero's among them; it is the start model that learns. Kept is what the
verifier finds right and the rules of `training.stages.imitation_filter` find fit to imitate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.data.budgets import BudgetSampler
from training.data.mixing import general_count
from training.data.prompts import Example, Prompter
from training.data.readers import fingerprint
from training.stages.collected import Journal, binding
from training.stages.imitate import imitate
from training.stages.imitation_filter import fit_to_imitate
from training.stages.imitation_replies import general_examples, judging
from training.stages.run import Stage
from training.stages.teachers import Replies, ask_endpoint
from training.stages.worked_replies import worked
from training.trainer.generation import draw
from training.types import Completion, Problem

__all__ = ["run"]


def run(stage: Stage) -> Path:
    """Collects, keeps what is right, imitates."""
    rows = stage.rows(stage.table.rows)
    general = stage.general(general_count(len(rows), stage.table.general))

    def gather(model: Any, prompter: Prompter) -> tuple[list[Example], list[Problem], dict[str, Any]]:
        if stage.table.teacher == "worked":
            return worked(stage, prompter, rows, general), [*rows, *general], {}
        teacher, before = model, stage.run.model_before("cold-start")
        if stage.table.teacher == "policy" and before is not None:
            teacher = stage.load(before)[0]
        examples, told = taught(stage, teacher, prompter, rows)
        return [*examples, *general_examples(stage, model, prompter, general)], [*rows, *general], told

    return imitate(stage, stage.run.start_model(), rows, gather)


def taught(
    stage: Stage, model: Any, prompter: Prompter, rows: Sequence[Problem]
) -> tuple[list[Example], dict[str, Any]]:
    """A teacher's replies at each row's budget, verified; and how many were kept, and why others weren't."""
    table = stage.table
    budgets = BudgetSampler(table.budgets, stage.seed, stage.config.budgets)
    asked = [budgets.level(row, 0) for row in rows]
    prompts = [prompter.prompt(row, budget) for row, budget in zip(rows, asked, strict=True)]
    replies: Sequence[Replies]
    if table.teacher == "endpoint":
        replies = stage.ranks.gather(_asked(stage, rows, asked) if stage.ranks.index == 0 else [])
    else:
        drawn = draw(
            model,
            prompter,
            prompts,
            samples=table.samples,
            temperature=table.temperature,
            max_tokens=table.max_tokens,
            seed=stage.seed,
        )
        replies = [[(c.thinking, c.answer) for c in each if c.finished] for each in drawn]
    worth_of = judging(stage, rows)
    examples: list[Example] = []
    told = {"asked": len(rows), "without a reply": sum(not each for each in replies), "wrong": 0, "unfit": 0}
    for row, prompt, each in zip(rows, prompts, replies, strict=True):
        worth = worth_of(row, [Completion("", (), t, a, 0, True, prompt.budget) for t, a in each])
        right = [(t, a) for (t, a), value in zip(each, worth, strict=True) if value == 1.0]
        fit = [(t, a) for t, a in right if fit_to_imitate(row, t, a, prompt.budget)]
        told["wrong"] += len(each) - len(right)
        told["unfit"] += len(right) - len(fit)
        for thinking, answer in fit[: table.keep]:
            examples.append(Example(prompt, prompter.target(prompt, thinking, answer)))
    return examples, told


def _asked(stage: Stage, rows: Sequence[Problem], budgets: Sequence[str | None]) -> Sequence[Replies]:
    """An endpoint's replies, each taken down as it comes."""
    table = stage.table
    teacher = (table.endpoint, table.endpoint_model, table.samples, table.temperature, table.max_tokens)
    bound = binding(teacher=teacher, rows=fingerprint(rows), asked=budgets)
    journal = Journal(stage.directory / "asked.jsonl", bound)
    return ask_endpoint(table, rows, budgets, known=journal.known, keep=journal.add)
