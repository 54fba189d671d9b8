"""Draws samples of the policy and labels them; a scorer learns from them and is judged by them.

They are saved as `thinkgate replay` reads them, one problem a line, so that votes and stopping rules can be
tried on the same samples.
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
from scorers.grader.pool import WorkerPool
from scorers.grouping import Grouper
from scorers.trained import ClassifierInput
from scorers.types import Sample
from training.data.problems import DataError
from training.data.prompts import Prompt, Prompter
from training.scorer.gate import SampledProblem
from training.types import Completion, Problem

__all__ = [
    "Draw",
    "LabelledProblem",
    "LabelledSample",
    "answer_groups",
    "draw_labelled",
    "gate_problem",
    "read_labelled",
    "write_labelled",
]

_log = logging.getLogger(__name__)


class Draw(Protocol):
    """Draws from the policy; see `training.trainer.generation.sample_completions`."""

    def __call__(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[Completion]]:
        """Return all samples of each prompt."""
        ...


@dataclass(frozen=True, slots=True)
class LabelledSample:
    """One sample of the policy; `correct` is the verifier's judgement, False where it was cut off."""

    thinking: str
    answer: str
    correct: bool
    finished: bool = True
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class LabelledProblem:
    """A problem, the level at which it was sampled (None: none), and the labelled samples."""

    problem: Problem
    level: str | None
    samples: tuple[LabelledSample, ...]

    def cases(self) -> list[ClassifierInput]:
        """Return the samples in the form in which serving gives them to a classifier."""
        return [
            ClassifierInput(self.problem.question, sample.answer, sample.thinking) for sample in self.samples
        ]


def draw_labelled(
    draw: Draw,
    prompter: Prompter,
    problems: Sequence[Problem],
    levels: Sequence[str | None],
    pool: WorkerPool | None = None,
) -> list[LabelledProblem]:
    """Draw samples of each problem at its level, and label them with the grader that serving votes with."""
    prompts = [prompter.prompt(problem, level) for problem, level in zip(problems, levels, strict=True)]
    return [
        LabelledProblem(
            problem, prompt.budget, tuple(_label(problem, completion, pool) for completion in completions)
        )
        for problem, prompt, completions in zip(problems, prompts, draw(prompts), strict=True)
    ]


def answer_groups(labelled: LabelledProblem, pool: WorkerPool | None = None) -> list[int | None]:
    """Return the group of equal answers of each sample, as the index of its first member.

    None stands for a sample without a vote.
    """
    grouper = Grouper(lambda first, new: equivalent(first, new, pool))
    for index, sample in enumerate(labelled.samples):
        finish_reason = "stop" if sample.finished else "length"
        grouper.add(Sample(index, sample.answer, sample.thinking, finish_reason), extract(sample.answer))
    by_member = {i: group.members[0] for group in grouper.groups for i in group.members}
    return [by_member.get(index) for index in range(len(labelled.samples))]


def gate_problem(
    labelled: LabelledProblem, scores: Sequence[float | None], pool: WorkerPool | None = None
) -> SampledProblem:
    """Return the samples that may vote, as the gate sees them.

    A sample without a score counts as the mean of the others.
    """
    voting = [
        (group, sample.correct, score)
        for group, sample, score in zip(answer_groups(labelled, pool), labelled.samples, scores, strict=True)
        if group is not None
    ]
    known = [score for _, _, score in voting if score is not None]
    neutral = sum(known) / len(known) if known else 0.5
    return SampledProblem(
        tuple(group for group, _, _ in voting),
        tuple(correct for _, correct, _ in voting),
        tuple(neutral if score is None else score for _, _, score in voting),
    )


def write_labelled(path: Path, labelled: Sequence[LabelledProblem]) -> None:
    """Write one recorded request a line, as `thinkgate replay` reads it; replaces the file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(b"".join(_to_recorded_request(problem).json_line() for problem in labelled))
    partial.replace(path)


def read_labelled(path: Path) -> list[LabelledProblem]:
    """Read what `write_labelled` wrote. Raises DataError."""
    try:
        recording = read_recording(path)
    except RecordingError as error:
        raise DataError(str(error)) from error
    if recording.notice:
        _log.warning("%s: %s Remove the file to draw its samples again.", path, recording.notice)
    return [_labelled_problem(line.request) for line in recording.lines]


def _label(problem: Problem, completion: Completion, pool: WorkerPool | None) -> LabelledSample:
    correct = (
        completion.finished
        and verify(completion.answer, problem.gold or "", pool, tolerance=problem.tolerance) is True
    )
    return LabelledSample(
        completion.thinking, completion.answer, correct, completion.finished, len(completion.ids)
    )


def _to_recorded_request(labelled: LabelledProblem) -> RecordedRequest:
    samples = [
        RecordedSample(
            text=sample.answer,
            reasoning=sample.thinking,
            correct=sample.correct,
            tokens=sample.tokens,
            finish_reason="stop" if sample.finished else "length",
        )
        for sample in labelled.samples
    ]
    problem = labelled.problem
    return RecordedRequest(
        version=VERSION,
        id=problem.id,
        question=problem.question,
        answer=problem.gold,
        tolerance=problem.tolerance,
        source=problem.source,
        extra=dict(problem.extra),
        budget=RecordedSetting(effort=labelled.level),
        samples=samples,
    )


def _labelled_problem(request: RecordedRequest) -> LabelledProblem:
    samples = tuple(
        LabelledSample(
            sample.reasoning or "",
            sample.text or "",
            bool(sample.correct),
            not sample.truncated,
            sample.tokens or 0,
        )
        for sample in request.samples
    )
    problem = Problem(
        request.id or "",
        request.question or "",
        request.answer,
        source=request.source or "",
        tolerance=request.tolerance,
        extra=request.extra,
    )
    return LabelledProblem(problem, request.budget.effort if request.budget else None, samples)
