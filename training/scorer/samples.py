"""The policy's own samples with verified labels: what a scorer learns from and is judged by.

Saved as `thinkgate replay` reads them, a question a line, so that votes and stopping rules can be tried
on the same samples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scorers.answers import equivalent, extract, verify
from scorers.grader.pool import MathPool
from scorers.grouping import Grouper
from scorers.trained import Case
from scorers.types import Sample
from training.data.prompts import Prompt, Prompter
from training.scorer.gate import SampledProblem
from training.types import Completion, Problem

__all__ = ["Asked", "Draw", "LabelledReply", "ask", "classes", "problem", "read_asked", "write_asked"]


class Draw(Protocol):
    """Draws from the policy; see `training.trainer.generation.sample_completions`."""

    def __call__(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[Completion]]:
        """All replies to each prompt."""
        ...


@dataclass(frozen=True, slots=True)
class LabelledReply:
    """One sample of the policy; `correct` is the verifier's word, False where the reply was cut off."""

    thinking: str
    answer: str
    correct: bool
    finished: bool = True
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, the budget it was asked at (None: none), and the replies."""

    row: Problem
    budget: str | None
    replies: tuple[LabelledReply, ...]

    def cases(self) -> list[Case]:
        """The replies as a classifier is given them in serving."""
        return [Case(self.row.question, reply.answer, reply.thinking) for reply in self.replies]


def ask(
    draw: Draw,
    prompter: Prompter,
    rows: Sequence[Problem],
    budgets: Sequence[str | None],
    pool: MathPool | None = None,
) -> list[Asked]:
    """Draws replies to each row at its budget, and labels them by the grader that serving votes with."""
    prompts = [prompter.prompt(row, budget) for row, budget in zip(rows, budgets, strict=True)]
    found = []
    for row, prompt, replies in zip(rows, prompts, draw(prompts), strict=True):
        labelled = tuple(_labelled(row, reply, pool) for reply in replies)
        found.append(Asked(row, prompt.budget, labelled))
    return found


def classes(asked: Asked, pool: MathPool | None = None) -> list[int | None]:
    """Each reply's class of equal answers, by the place of the class's first; None where it has no vote."""
    grouper = Grouper(lambda first, new: equivalent(first, new, pool))
    for place, reply in enumerate(asked.replies):
        sample = Sample(place, reply.answer, reply.thinking, "stop" if reply.finished else "length")
        grouper.add(sample, extract(reply.answer))
    by_member = {i: group.members[0] for group in grouper.groups for i in group.members}
    return [by_member.get(place) for place in range(len(asked.replies))]


def problem(asked: Asked, scores: Sequence[float | None], pool: MathPool | None = None) -> SampledProblem:
    """What the gate sees: the replies that may vote. Without a score one counts as the mean of the others."""
    voting = [
        (group, reply.correct, score)
        for group, reply, score in zip(classes(asked, pool), asked.replies, scores, strict=True)
        if group is not None
    ]
    known = [score for _, _, score in voting if score is not None]
    neutral = sum(known) / len(known) if known else 0.5
    return SampledProblem(
        tuple(group for group, _, _ in voting),
        tuple(correct for _, correct, _ in voting),
        tuple(neutral if score is None else score for _, _, score in voting),
    )


def write_asked(path: Path, asked: Sequence[Asked]) -> None:
    """One JSON object a line, in the form that `thinkgate replay` reads, replacing the file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(_line(each)) + "\n" for each in asked), encoding="utf-8")
    partial.replace(path)


def read_asked(path: Path) -> list[Asked]:
    """What `write_asked` wrote."""
    return [_asked(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _labelled(row: Problem, reply: Completion, pool: MathPool | None) -> LabelledReply:
    correct = reply.finished and verify(reply.answer, row.gold or "", pool, tolerance=row.tolerance) is True
    return LabelledReply(reply.thinking, reply.answer, correct, reply.finished, len(reply.ids))


def _line(asked: Asked) -> dict[str, Any]:
    samples = [
        {
            "text": reply.answer,
            "reasoning": reply.thinking,
            "correct": reply.correct,
            "tokens": reply.tokens,
            "finish_reason": "stop" if reply.finished else "length",
        }
        for reply in asked.replies
    ]
    row = asked.row
    return {
        "id": row.id,
        "question": row.question,
        "answer": row.gold,
        "tolerance": row.tolerance,
        "source": row.source,
        "budget": asked.budget,
        "extra": dict(row.extra),
        "samples": samples,
    }


def _asked(line: Mapping[str, Any]) -> Asked:
    replies = tuple(
        LabelledReply(
            each["reasoning"], each["text"], each["correct"], each["finish_reason"] == "stop", each["tokens"]
        )
        for each in line["samples"]
    )
    row = Problem(
        line["id"],
        line["question"],
        line["answer"],
        source=line["source"],
        tolerance=line.get("tolerance"),
        extra=line["extra"],
    )
    return Asked(row, line["budget"], replies)
