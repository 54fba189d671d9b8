"""A generative judge: it works the question out anew and says whether an answer is right.

Source: generative verifiers, arXiv:2408.15240; thinking before the verdict, trained by reinforcement
learning with verifiable reward, arXiv:2504.02495. First it imitates checks made by rule, then GRPO, the
trainer of the policy itself, on checks of the policy's own replies; without GRPO it imitates those too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scorers.answers import extract
from scorers.judge import yes_probability
from training.data.prompts import Prompter
from training.scorer.judge_problems import (
    judge_problem,
    judge_problems_from_replies,
    judge_problems_to_imitate,
)
from training.scorer.samples import LabelledProblem
from training.stages.imitate import imitate
from training.stages.reinforce import reinforce
from training.stages.run import Stage
from training.stages.worked_replies import worked
from training.trainer.generation import draw
from training.types import Completion, Problem

__all__ = ["Checking", "Manner", "judged", "train_judge"]


@dataclass(frozen=True, slots=True)
class Manner:
    """How a judge is asked: the question's form, the budget, how often, and with how many tokens at most."""

    question: str
    budget: str
    rounds: int
    max_tokens: int


@dataclass(frozen=True)
class Checking(Stage):
    """A stage of a run whose questions are checks, with a table, a folder and held-out checks of its own."""

    settings: Any
    folder: Path
    kept: tuple[Problem, ...]

    @property
    def table(self) -> Any:
        """The settings, asking at the held-out questions' budget alone."""
        return self.settings.model_copy(update={"budgets": {self.config.held_out.budget: 1.0}})

    @property
    def directory(self) -> Path:
        """Where it writes."""
        return self.folder

    def held_out(self) -> list[Problem]:
        """Checks of answers to validation questions."""
        return list(self.kept)


def train_judge(
    stage: Stage,
    start: Path,
    rows: Sequence[Problem],
    train: Sequence[LabelledProblem],
    validation: Sequence[LabelledProblem],
) -> tuple[Path, dict[str, Any]]:
    """Imitation of checks of `rows`, then GRPO on checks of `train`'s replies, or imitation of both.

    A policy's own mistakes are harder than those made by rule.
    Returns the model's directory, and held-out accuracies of its verdicts for the report.
    """
    table = stage.table
    form = table.question
    kept = tuple(judge_problems_from_replies(form, validation, stage.seed, table.misses, max_wrong=1))
    folder = stage.directory / "generative"
    imitating = Checking(stage.run, "checks", table.checks, folder / "imitation", kept)
    imitating.directory.mkdir(parents=True, exist_ok=True)
    own_too = train if table.judge is None else ()
    imitated = judge_problems_to_imitate(form, rows, own_too, imitating.seed, table.misses)

    def gather(model: Any, prompter: Prompter) -> tuple[Any, Sequence[Problem], dict[str, Any]]:
        return worked(imitating, prompter, imitated, ()), imitated, {}

    model = (
        imitate(imitating, start, imitated, gather) if not _done(imitating) else imitating.directory / "model"
    )
    if table.judge is None:
        return model, {"imitated": len(imitated)}
    learning = Checking(stage.run, "judge", table.judge, folder / "reinforcement", kept)
    learning.directory.mkdir(parents=True, exist_ok=True)
    own = judge_problems_from_replies(form, train, learning.seed, table.misses)
    if not _done(learning):
        reinforce(learning, model, own)
    return learning.directory / "model", {"imitated": len(imitated), "reinforced": len(own)}


def judged(
    stage: Stage,
    directory: Path,
    manner: Manner,
    rows: Sequence[Problem],
    answers: Sequence[Sequence[str]],
) -> list[list[float | None]]:
    """What the judge makes of every answer to each row, as in serving; equal ones are asked about once.

    None where there is no answer, or no verdict that can be read.
    """
    model, _, prompter = stage.load(directory)
    different = {
        # whether it is right plays no part in asking
        (row.id, answer): judge_problem(manner.question, row, answer, False)
        for row, each in zip(rows, answers, strict=True)
        for answer in each
        if answer.strip()
    }
    drawn = draw(
        model,
        prompter,
        [prompter.prompt(asked, manner.budget) for asked in different.values()],
        samples=manner.rounds,
        temperature=0.0 if manner.rounds == 1 else 1.0,
        max_tokens=manner.max_tokens,
        seed=stage.seed,
    )
    found = dict(zip(different, map(_belief, drawn), strict=True))
    return [[found.get((row.id, answer)) for answer in each] for row, each in zip(rows, answers, strict=True)]


def _belief(verdicts: Sequence[Completion]) -> float | None:
    read = [extract(verdict.answer) for verdict in verdicts if verdict.finished]
    said = [answer.key for answer in read if answer is not None and answer.key in ("yes", "no")]
    return yes_probability(said.count("yes"), len(said))


def _done(stage: Stage) -> bool:
    return (stage.directory / "card.json").exists()
