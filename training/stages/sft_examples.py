"""Examples to imitate: the best replies that a model samples itself, and replies to general problems."""

from __future__ import annotations

from collections.abc import Sequence

from training.config import SftTable
from training.data.budgets import BudgetSampler
from training.data.prompts import Example, Prompter
from training.rewards import RewardContext, reward_plan
from training.stages.reply_filter import is_fit_to_imitate
from training.stages.stage import VERIFIABLE, Stage
from training.stages.trained_scorer import ScoreCompletions, load_scorer
from training.stages.worked_examples import worked_examples
from training.trainer.generation import sample_completions
from training.trainer.untyped import Model
from training.types import Completion, Problem, Reward

__all__ = ["best_completions", "correctness", "general_examples", "sampled_examples"]

_VERIFIED_REWARDS = VERIFIABLE | {"majority"}


def general_examples(
    stage: Stage[SftTable], model: Model, prompter: Prompter, problems: Sequence[Problem]
) -> list[Example]:
    """Return general problems' written answers, and the model's own replies to those without one.

    Its own replies keep the model as it is.
    """
    unanswered = [problem for problem in problems if "answer" not in problem.extra]
    own_replies = sampled_examples(stage, model, prompter, unanswered)[0] if unanswered else []
    return [*worked_examples(stage.data, prompter, (), problems), *own_replies]


def correctness(stage: Stage[SftTable], problems: Sequence[Problem]) -> Reward:
    """Return what values replies to these problems: 1.0 if the problem's own reward finds them right.

    A general problem that nothing verifies accepts every reply, another such problem none.
    """
    context = RewardContext(markup=stage.config.family.markup, pool=stage.run.pool)
    plan = reward_plan(context, {problem.reward for problem in problems} & _VERIFIED_REWARDS, {})

    def values(problem: Problem, replies: Sequence[Completion]) -> Sequence[float | None]:
        if problem.reward in _VERIFIED_REWARDS:
            return plan.judge(problem, replies).main
        return [float(problem.general)] * len(replies)

    return values


def sampled_examples(
    stage: Stage[SftTable], model: Model, prompter: Prompter, problems: Sequence[Problem]
) -> tuple[list[Example], dict[str, object]]:
    """Return the best replies to each problem, by `correctness`, as examples, and how many there were."""
    table = stage.table
    budgets = BudgetSampler(table.budgets, stage.seed, stage.config.budgets)
    prompts = [prompter.prompt(problem, budgets.level(problem, 0)) for problem in problems]
    scorer = load_scorer(stage, table.scorer) if table.scorer else None  # refuses before the sampling
    samples = sample_completions(
        model, prompter, prompts,
        samples=table.samples, temperature=table.temperature, max_tokens=table.max_tokens, seed=stage.seed,
    )  # fmt: skip
    is_correct = correctness(stage, problems)
    scores = _scores(scorer, problems, samples)
    examples = []
    for problem, prompt, replies, reply_scores in zip(problems, prompts, samples, scores, strict=True):
        values = is_correct(problem, replies)
        for reply in best_completions(problem, replies, values, table.keep, reply_scores):
            examples.append(Example(prompt, prompter.target(prompt, reply.thinking, reply.answer)))
    reply_count = sum(map(len, samples))
    return examples, {"drawn": reply_count, "kept": len(examples), "questions": len(problems)}


def best_completions(
    problem: Problem,
    replies: Sequence[Completion],
    values: Sequence[float | None],
    limit: int,
    scores: Sequence[float | None] = (),
) -> list[Completion]:
    """Return at most `limit` different replies that are fully correct and fit to imitate, the shortest first.

    `scores` are a scorer's values, one for each reply. With them the highest come first, and replies without
    a score last.
    """
    sort_keys = {
        reply.ids: -((scores[index] if scores else None) or 0.0)
        for index, (reply, value) in enumerate(zip(replies, values, strict=True))
        if value is not None and value >= 1.0 and reply.finished
        if is_fit_to_imitate(problem, reply.thinking, reply.answer, reply.budget)
    }
    different = {reply.ids: reply for reply in replies if reply.ids in sort_keys}
    ranking = sorted(different, key=lambda ids: (sort_keys[ids], len(ids), ids))
    return [different[ids] for ids in ranking[:limit]]


def _scores(
    scorer: ScoreCompletions | None, problems: Sequence[Problem], samples: Sequence[Sequence[Completion]]
) -> Sequence[Sequence[float | None]]:
    """Return a scorer's values of the replies; none without a scorer, and none for general problems."""
    indices = [index for index, problem in enumerate(problems) if not problem.general]
    if scorer is None or not indices:
        return [()] * len(problems)
    scores = scorer([problems[index] for index in indices], [samples[index] for index in indices])
    by_index = dict(zip(indices, scores, strict=True))
    return [by_index.get(index, ()) for index in range(len(problems))]
