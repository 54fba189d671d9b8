"""A model's figures on held-out questions, in this process: quick, for the run card and the plots.

What counts in the end is `thinkgate eval` through the gateway, on the served model; this says where
to look.
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
from training.stages.run import Stage
from training.trainer.generation import draw
from training.types import Completion, Problem

__all__ = ["majority", "measure"]


def measure(
    stage: Stage,
    start: Path | None,
    budgets: Sequence[str | None],
    *,
    voted: Collection[str | None] = (),
    samples: int = 8,
) -> dict[str, dict[str, float]]:
    """By budget ("none" for none): greedy, and at `voted` budgets the mean of single samples and their vote.

    All are shares of the held-out questions answered right; `thinking` is the greedy replies' mean
    number of thinking tokens.
    """
    model, _, prompter = stage.load(start)
    rows = stage.held_out()
    most, pool = stage.config.held_out.max_tokens, stage.run.pool

    def right(row: Problem, answer: str) -> bool:
        return verify(answer, row.gold or "", pool, tolerance=row.tolerance) is True

    table: dict[str, dict[str, float]] = {}
    for budget in budgets:
        prompts = [prompter.prompt(row, budget) for row in rows]
        greedy = [each[0] for each in draw(model, prompter, prompts, temperature=0, max_tokens=most)]
        figures = table[budget or "none"] = {
            "greedy": fmean(right(row, reply.answer) for row, reply in zip(rows, greedy, strict=True)),
            "thinking": fmean(reply.thought for reply in greedy),
        }
        if budget not in voted:
            continue
        drawn = draw(model, prompter, prompts, samples=samples, max_tokens=most, seed=0)
        pairs = list(zip(rows, drawn, strict=True))
        figures["sampled"] = fmean(right(row, each.answer) for row, replies in pairs for each in replies)
        figures[f"majority@{samples}"] = fmean(right(row, majority(replies, pool)) for row, replies in pairs)
    return table


def majority(replies: Sequence[Completion], pool: WorkerPool | None = None) -> str:
    """The answer that the gateway's majority vote gives over these replies; "" where there is none."""
    grouper = Grouper(lambda first, new: equivalent(first, new, pool))
    samples = [
        Sample(place, reply.answer, reply.thinking, "stop" if reply.finished else "length")
        for place, reply in enumerate(replies)
    ]
    for sample in samples:
        grouper.add(sample, extract(sample.content))
    winner = take_vote(SamplingRequest(samples=len(samples)), grouper.groups, samples).winner
    return "" if winner is None else replies[winner].answer
