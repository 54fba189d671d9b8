"""Rejection sampling: many replies a question, the best kept, imitated together with general rows.

Source: DeepSeek-R1, arXiv:2501.12948, section 2.3.3: of about 800,000 samples three quarters are
reasoning, drawn from the RL checkpoint and kept where right; the rest is general, so that other
abilities stay. R1 trains its start model anew on them: `fresh = true`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scorers.local_classifier import LocalClassifier
from scorers.trained import Case
from training.data.budgets import BudgetSampler
from training.data.mixing import beside
from training.prompting import Prompter
from training.quality import fit_to_imitate
from training.rewards import Setting, reward_plan
from training.stages.cold_start import worked
from training.stages.imitate import imitate
from training.stages.run import Stage
from training.trainer.drawing import draw
from training.trainer.sft import Example
from training.types import Completion, Row

__all__ = ["best", "run"]


def run(stage: Stage) -> Path:
    """Draws from the stage before, keeps the best, mixes, imitates."""
    rows = stage.rows(stage.table.rows)
    before = stage.run.model_before("rejection")

    def gather(model: Any, prompter: Prompter) -> tuple[list[Example], list[Row], dict[str, Any]]:
        policy = stage.load(before)[0] if stage.table.fresh else model
        examples, told = kept(stage, policy, prompter, rows)
        general = stage.general(beside(len(examples), stage.table.general))
        return [*examples, *worked(stage, prompter, (), general)], [*rows, *general], told

    return imitate(stage, stage.run.start_model() if stage.table.fresh else before, gather)


def kept(
    stage: Stage, model: Any, prompter: Prompter, rows: Sequence[Row]
) -> tuple[list[Example], dict[str, Any]]:
    """The best replies to each row as examples, and how many there were."""
    table = stage.table
    budgets = BudgetSampler(table.budgets, stage.seed, stage.config.budgets)
    prompts = [prompter.prompt(row, budgets.level(row, 0)) for row in rows]
    drawn = draw(
        model, prompter, prompts,
        samples=table.samples, temperature=table.temperature, max_tokens=table.max_tokens, seed=stage.seed,
    )  # fmt: skip
    plan = reward_plan(Setting(markup=stage.config.family.markup), {row.reward for row in rows}, {})
    liking = _liking(table.scorer)
    examples = []
    for row, prompt, replies in zip(rows, prompts, drawn, strict=True):
        liked = liking(row, replies) if liking else ()
        for reply in best(row, replies, plan.judge(row, replies).main, table.keep, liked):
            examples.append(Example(prompt, prompter.target(prompt, reply.thinking, reply.answer)))
    drawn_count = sum(map(len, drawn))
    return examples, {"drawn": drawn_count, "kept": len(examples), "questions": len(rows)}


def best(
    row: Row,
    replies: Sequence[Completion],
    worth: Sequence[float | None],
    most: int,
    liked: Sequence[float] = (),
) -> list[Completion]:
    """At most so many different replies that are wholly right and fit to imitate, the shortest first.

    `liked` are a scorer's values, one for each reply; where given, the most liked come first.
    """
    right = {
        reply.ids: -(liked[place] if liked else 0.0)
        for place, (reply, value) in enumerate(zip(replies, worth, strict=True))
        if value is not None and value >= 1.0 and reply.finished
        if fit_to_imitate(row, reply.thinking, reply.answer, reply.budget)
    }
    different = {reply.ids: reply for reply in replies if reply.ids in right}
    order = sorted(different, key=lambda ids: (right[ids], len(ids), ids))
    return [different[ids] for ids in order[:most]]


def _liking(directory: Path | None) -> Callable[[Row, Sequence[Completion]], Sequence[float]] | None:
    """The scorer's probabilities of being right, as it would weigh the replies in serving."""
    if directory is None:
        return None
    classifier = LocalClassifier(directory)

    def liking(row: Row, replies: Sequence[Completion]) -> Sequence[float]:
        cases = [Case(row.question, reply.answer, reply.thinking) for reply in replies]
        return asyncio.run(classifier.classify(cases))[0]

    return liking
