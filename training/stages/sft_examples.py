"""Replies to imitate: the best that a model draws itself, and general rows' own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.data.budgets import BudgetSampler
from training.data.prompts import Example, Prompter
from training.rewards import RewardContext, reward_plan
from training.stages.reply_filter import is_fit_to_imitate
from training.stages.stage import VERIFIABLE, Stage
from training.stages.trained_scorer import ScoreCompletions, load_scorer
from training.stages.worked_examples import worked_examples
from training.trainer.generation import sample_completions
from training.types import Completion, Problem, Reward

__all__ = ["best_completions", "correctness", "general_examples", "sampled_examples"]

_JUDGED = VERIFIABLE | {"majority"}


def general_examples(stage: Stage, model: Any, prompter: Prompter, rows: Sequence[Problem]) -> list[Example]:
    """General rows' written answers; where there is none the model's own replies, which keep it as it is."""
    unwritten = [row for row in rows if "answer" not in row.extra]
    own = sampled_examples(stage, model, prompter, unwritten)[0] if unwritten else []
    return [*worked_examples(stage, prompter, (), rows), *own]


def correctness(stage: Stage, rows: Sequence[Problem]) -> Reward:
    """What replies to these rows are worth: 1.0 where the row's own reward finds them right.

    A general row that nothing verifies takes any, another such row none.
    """
    setting = RewardContext(markup=stage.config.family.markup, pool=stage.run.pool)
    plan = reward_plan(setting, {row.reward for row in rows} & _JUDGED, {})

    def worth(row: Problem, replies: Sequence[Completion]) -> Sequence[float | None]:
        return plan.judge(row, replies).main if row.reward in _JUDGED else [float(row.general)] * len(replies)

    return worth


def sampled_examples(
    stage: Stage, model: Any, prompter: Prompter, rows: Sequence[Problem]
) -> tuple[list[Example], dict[str, Any]]:
    """The best replies to each row, by `correctness`, as examples, and how many there were."""
    table = stage.table
    budgets = BudgetSampler(table.budgets, stage.seed, stage.config.budgets)
    prompts = [prompter.prompt(row, budgets.level(row, 0)) for row in rows]
    likes_of = load_scorer(stage, table.scorer) if table.scorer else None  # refused before all the drawing
    drawn = sample_completions(
        model, prompter, prompts,
        samples=table.samples, temperature=table.temperature, max_tokens=table.max_tokens, seed=stage.seed,
    )  # fmt: skip
    worth_of = correctness(stage, rows)
    liked = _liked(likes_of, rows, drawn)
    examples = []
    for row, prompt, replies, likes in zip(rows, prompts, drawn, liked, strict=True):
        for reply in best_completions(row, replies, worth_of(row, replies), table.keep, likes):
            examples.append(Example(prompt, prompter.target(prompt, reply.thinking, reply.answer)))
    drawn_count = sum(map(len, drawn))
    return examples, {"drawn": drawn_count, "kept": len(examples), "questions": len(rows)}


def best_completions(
    row: Problem,
    replies: Sequence[Completion],
    worth: Sequence[float | None],
    most: int,
    liked: Sequence[float | None] = (),
) -> list[Completion]:
    """At most so many different replies that are wholly right and fit to imitate, the shortest first.

    `liked` are a scorer's values, one for each reply; where given, the most liked come first, and those
    of which it says nothing last.
    """
    right = {
        reply.ids: -((liked[place] if liked else None) or 0.0)
        for place, (reply, value) in enumerate(zip(replies, worth, strict=True))
        if value is not None and value >= 1.0 and reply.finished
        if is_fit_to_imitate(row, reply.thinking, reply.answer, reply.budget)
    }
    different = {reply.ids: reply for reply in replies if reply.ids in right}
    order = sorted(different, key=lambda ids: (right[ids], len(ids), ids))
    return [different[ids] for ids in order[:most]]


def _liked(
    likes_of: ScoreCompletions | None, rows: Sequence[Problem], drawn: Sequence[Sequence[Completion]]
) -> Sequence[Sequence[float | None]]:
    """What a scorer makes of the replies; nothing without one, or of general rows."""
    places = [place for place, row in enumerate(rows) if not row.general]
    if likes_of is None or not places:
        return [()] * len(rows)
    liked = likes_of([rows[p] for p in places], [drawn[p] for p in places])
    found = dict(zip(places, liked, strict=True))
    return [found.get(place, ()) for place in range(len(rows))]
