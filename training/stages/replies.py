"""Replies to imitate: the rows' own worked ones, and the best that a model draws itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scorers.local_classifier import LocalClassifier
from scorers.trained import Case
from training.data.budgets import BudgetSampler
from training.data.chains import LENGTHS
from training.prompting import Prompter
from training.quality import fit_to_imitate
from training.rewards import Setting, reward_plan
from training.stages.run import VERIFIABLE, Stage
from training.trainer.drawing import draw
from training.trainer.sft import Example
from training.types import Completion, Reward, Row

__all__ = ["best", "general_examples", "judging", "kept", "worked"]

_JUDGED = VERIFIABLE | {"majority"}


def worked(stage: Stage, prompter: Prompter, rows: Sequence[Row], general: Sequence[Row]) -> list[Example]:
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


def general_examples(stage: Stage, model: Any, prompter: Prompter, rows: Sequence[Row]) -> list[Example]:
    """General rows' written answers; where there is none the model's own replies, which keep it as it is."""
    unwritten = [row for row in rows if "answer" not in row.extra]
    own = kept(stage, model, prompter, unwritten)[0] if unwritten else []
    return [*worked(stage, prompter, (), rows), *own]


def judging(stage: Stage, rows: Sequence[Row]) -> Reward:
    """What replies to these rows are worth: 1.0 where the row's own reward finds them right.

    A general row that nothing verifies takes any, another such row none.
    """
    setting = Setting(markup=stage.config.family.markup, pool=stage.run.pool)
    plan = reward_plan(setting, {row.reward for row in rows} & _JUDGED, {})

    def worth(row: Row, replies: Sequence[Completion]) -> Sequence[float | None]:
        return plan.judge(row, replies).main if row.reward in _JUDGED else [float(row.general)] * len(replies)

    return worth


def kept(
    stage: Stage, model: Any, prompter: Prompter, rows: Sequence[Row]
) -> tuple[list[Example], dict[str, Any]]:
    """The best replies to each row, by `judging`, as examples, and how many there were."""
    table = stage.table
    budgets = BudgetSampler(table.budgets, stage.seed, stage.config.budgets)
    prompts = [prompter.prompt(row, budgets.level(row, 0)) for row in rows]
    drawn = draw(
        model, prompter, prompts,
        samples=table.samples, temperature=table.temperature, max_tokens=table.max_tokens, seed=stage.seed,
    )  # fmt: skip
    worth_of = judging(stage, rows)
    liking = _liking(table.scorer)
    examples = []
    for row, prompt, replies in zip(rows, prompts, drawn, strict=True):
        worth = worth_of(row, replies)
        liked = liking(row, replies) if liking else ()
        for reply in best(row, replies, worth, table.keep, liked):
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
