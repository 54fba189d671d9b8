"""The policy's own samples with verified labels: what a scorer learns from and is judged by.

Saved as `thinkgate replay` reads them, a question a line, so that votes and stopping rules can be tried
on the same samples.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from policies.recordings import (
    VERSION,
    RecordedRequest,
    RecordedSample,
    RecordedSetting,
    RecordingError,
    read_recording,
)
from scorers.answers import equivalent, extract, verify
from scorers.grader.pool import MathPool
from scorers.grouping import Grouper
from scorers.trained import Case
from scorers.types import Sample
from training.data.problems import DataError
from training.data.prompts import Prompt, Prompter
from training.scorer.gate import SampledProblem
from training.types import Completion, Problem

__all__ = ["Asked", "Draw", "LabelledReply", "ask", "classes", "problem", "read_asked", "write_asked"]

_log = logging.getLogger(__name__)


class Draw(Protocol):
    """Draws from the policy; see `training.trainer.generation.draw`."""

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
    """Write one recorded request a line, as `thinkgate replay` reads it; replaces the file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(b"".join(_recorded(each).json_line() for each in asked))
    partial.replace(path)


def read_asked(path: Path) -> list[Asked]:
    """Read what `write_asked` wrote. Raises DataError."""
    try:
        recording = read_recording(path)
    except RecordingError as error:
        raise DataError(str(error)) from error
    if recording.notice:
        _log.warning("%s: %s Remove the file to draw its samples again.", path, recording.notice)
    return [_asked(line.request) for line in recording.lines]


def _labelled(row: Problem, reply: Completion, pool: MathPool | None) -> LabelledReply:
    correct = reply.finished and verify(reply.answer, row.gold or "", pool, tolerance=row.tolerance) is True
    return LabelledReply(reply.thinking, reply.answer, correct, reply.finished, len(reply.ids))


def _recorded(asked: Asked) -> RecordedRequest:
    samples = [
        RecordedSample(
            text=reply.answer,
            reasoning=reply.thinking,
            correct=reply.correct,
            tokens=reply.tokens,
            finish_reason="stop" if reply.finished else "length",
        )
        for reply in asked.replies
    ]
    row = asked.row
    return RecordedRequest(
        version=VERSION,
        id=row.id,
        question=row.question,
        answer=row.gold,
        tolerance=row.tolerance,
        source=row.source,
        extra=dict(row.extra),
        budget=RecordedSetting(effort=asked.budget),
        samples=samples,
    )


def _asked(request: RecordedRequest) -> Asked:
    replies = tuple(
        LabelledReply(
            sample.reasoning or "",
            sample.text or "",
            bool(sample.correct),
            not sample.truncated,
            sample.tokens or 0,
        )
        for sample in request.samples
    )
    row = Problem(
        request.id or "",
        request.question or "",
        request.answer,
        source=request.source or "",
        tolerance=request.tolerance,
        extra=request.extra,
    )
    return Asked(row, request.budget.effort if request.budget else None, replies)
