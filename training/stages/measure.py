"""Measures a model on held-out questions in this process: quickly, for comparisons between runs.

The final word is `thinkgate eval` through the gateway, on the served model. This says where to look.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import fmean

from policies.types import SamplingRequest
from policies.voting import take_vote
from scorers.answers import equivalent, extract, verify
from scorers.grader.pool import WorkerPool
from scorers.grouping import Grouper
from scorers.types import Sample
from training.config import StageTable
from training.stages.stage import Stage
from training.trainer.generation import sample_completions
from training.types import Completion, Problem

__all__ = ["majority_answer", "measure"]


def measure(
    stage: Stage[StageTable],
    start: Path | None,
    budgets: Sequence[str | None],
    *,
    voted: Collection[str | None] = (),
    samples: int = 8,
) -> dict[str, dict[str, float]]:
    """Return metrics by budget ("none" for none): of greedy replies, and at `voted` budgets of samples.

    `sampled` is the mean of single samples, `majority@N` that of their votes. All but `thinking` are shares
    of the held-out questions answered correctly; `thinking` is the greedy replies' mean of thinking tokens.
    """
    model, _, prompter = stage.load(start)
    problems = stage.held_out()
    max_tokens, pool = stage.config.held_out.max_tokens, stage.run.pool

    def is_right(problem: Problem, answer: str) -> bool:
        return verify(answer, problem.gold or "", pool, tolerance=problem.tolerance) is True

    table: dict[str, dict[str, float]] = {}
    for budget in budgets:
        prompts = [prompter.prompt(problem, budget) for problem in problems]
        greedy = [
            completions[0]
            for completions in sample_completions(
                model, prompter, prompts, temperature=0, max_tokens=max_tokens
            )
        ]
        metrics = table[budget or "none"] = {
            "greedy": fmean(
                is_right(problem, reply.answer) for problem, reply in zip(problems, greedy, strict=True)
            ),
            "thinking": fmean(reply.thinking_tokens for reply in greedy),
        }
        if budget not in voted:
            continue
        sampled = sample_completions(model, prompter, prompts, samples=samples, max_tokens=max_tokens, seed=0)
        pairs = list(zip(problems, sampled, strict=True))
        metrics["sampled"] = fmean(
            is_right(problem, reply.answer) for problem, replies in pairs for reply in replies
        )
        metrics[f"majority@{samples}"] = fmean(
            is_right(problem, majority_answer(replies, pool)) for problem, replies in pairs
        )
    return table


def majority_answer(replies: Sequence[Completion], pool: WorkerPool | None = None) -> str:
    """Return the answer of the gateway's majority vote over these replies, "" if there is none."""
    grouper = Grouper(lambda first, new: equivalent(first, new, pool))
    samples = [
        Sample(index, reply.answer, reply.thinking, "stop" if reply.finished else "length")
        for index, reply in enumerate(replies)
    ]
    for sample in samples:
        grouper.add(sample, extract(sample.content))
    winner = take_vote(SamplingRequest(samples=len(samples)), grouper.groups, samples).winner
    return "" if winner is None else replies[winner].answer
