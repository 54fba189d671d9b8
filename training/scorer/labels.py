"""Labels for a classifier: whether a sample is correct, and each of its steps where known. Pure."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from scorers.grader.pool import WorkerPool
from scorers.trained import ClassifierInput, fill_template
from training.data.chains import LENGTHS
from training.scorer.samples import LabelledProblem, LabelledSample, answer_groups

__all__ = ["LabelledText", "change_digit", "labelled_texts", "step_labels", "with_hard_negatives"]


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text to classify, with its labels (end, right so far); the last label is that of the whole sample.

    `end` is a position in the text, in characters.
    """

    text: str
    labels: tuple[tuple[int, bool], ...]


def step_labels(thinking: str, chain: str) -> list[tuple[int, bool]]:
    """Return the end of each step of the thinking, and whether it agrees with the worked chain so far.

    Steps are lines, or words if the chain is a single line. This suits only questions whose chain is the one
    way to work them out. Source: process supervision, "Let's Verify Step by Step", arXiv:2305.20050.
    """
    pattern = r"[^\n]+" if "\n" in chain else r"\S+"
    expected = re.findall(pattern, chain)
    right = True
    labels = []
    for index, step in enumerate(re.finditer(pattern, thinking)):
        right = right and index < len(expected) and step[0].strip() == expected[index].strip()
        labels.append((step.end(), right))
    return labels


def labelled_texts(
    template: str, problems: Iterable[LabelledProblem], *, steps: bool = False
) -> list[LabelledText]:
    """Return every sample that has an answer, as serving classifies it; with `steps`, label its steps too."""
    return [
        _labelled_text(template, problem, sample, steps)
        for problem in problems
        for sample in problem.samples
        if sample.answer.strip()
    ]


def _labelled_text(
    template: str, labelled: LabelledProblem, sample: LabelledSample, steps: bool
) -> LabelledText:
    case = ClassifierInput(labelled.problem.question, sample.answer, sample.thinking)
    text = fill_template(template, case)
    labels: list[tuple[int, bool]] = []
    chains = labelled.problem.extra.get("chains")
    before, placeholder, _ = template.partition("{reasoning}")
    if steps and chains and placeholder:
        start = len(fill_template(before, case))
        chain = chains[LENGTHS.get(labelled.level or "high", "high")]
        labels = [(start + end, right) for end, right in step_labels(sample.thinking, chain)]
    return LabelledText(text, (*labels, (len(text), sample.correct)))


def change_digit(answer: str, rng: random.Random) -> str | None:
    """Return the answer with one digit changed, or None if it has no digit."""
    positions = [position for position, character in enumerate(answer) if character in "0123456789"]
    if not positions:
        return None
    position = rng.choice(positions)
    digit = rng.choice([digit for digit in "0123456789" if digit != answer[position]])
    return answer[:position] + digit + answer[position + 1 :]


def with_hard_negatives(
    problems: Sequence[LabelledProblem], seed: int, pool: WorkerPool | None = None
) -> list[LabelledProblem]:
    """Add hard negatives to the samples of each problem.

    They are the wrong samples that would win the problem's vote, once more, and each right sample with one
    digit of its answer changed.
    """
    rng = random.Random(f"negatives {seed}")
    return [
        replace(problem, samples=(*problem.samples, *_hard_negatives(problem, rng, pool)))
        for problem in problems
    ]


def _hard_negatives(
    problem: LabelledProblem, rng: random.Random, pool: WorkerPool | None
) -> list[LabelledSample]:
    groups = answer_groups(problem, pool)
    voting = [group for group in groups if group is not None]
    leader = max(sorted(set(voting)), key=voting.count) if voting else None
    winners = [
        sample
        for sample, group in zip(problem.samples, groups, strict=True)
        if group is not None and group == leader and not sample.correct
    ]
    changed = []
    for sample in problem.samples:
        answer = change_digit(sample.answer, rng) if sample.correct else None
        if answer is not None:
            changed.append(replace(sample, answer=answer, correct=False))
    return [*winners, *changed]
