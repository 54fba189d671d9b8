"""A generative judge: it solves the problem again and says whether an answer is correct.

Source: generative verifiers, arXiv:2408.15240; thinking before the verdict, trained by reinforcement learning
with verifiable reward, arXiv:2504.02495. First it is fine-tuned on checks made by rule. Then the policy's own
trainer, GRPO, trains it on checks of the policy's own replies; without GRPO it is fine-tuned on those too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from scorers.answers import extract
from scorers.judge import yes_probability
from training.config import RlTable, ScorerTable, SftTable, StageTable
from training.data.prompts import Prompter
from training.scorer.judge_problems import (
    judge_problem,
    judge_problems_from_replies,
    judge_problems_to_imitate,
)
from training.scorer.samples import LabelledProblem
from training.stages.grpo_stage import run_grpo
from training.stages.sft_stage import Collection, run_sft
from training.stages.stage import Stage
from training.stages.stage_data import Table_co
from training.stages.worked_examples import worked_examples
from training.trainer.generation import sample_completions
from training.trainer.untyped import Model
from training.types import Completion, Problem

__all__ = ["JudgePrompting", "JudgeStage", "judge_answers", "train_judge"]

Table = TypeVar("Table", SftTable, RlTable)


@dataclass(frozen=True, slots=True)
class JudgePrompting:
    """How a judge is asked: the question's form, the budget, how often, and with how many tokens at most."""

    question: str
    budget: str
    rounds: int
    max_tokens: int


@dataclass(frozen=True)
class JudgeStage(Stage[Table_co]):
    """A stage whose problems are checks, with a folder and held-out checks of its own."""

    folder: Path
    checks: tuple[Problem, ...]

    @property
    def directory(self) -> Path:
        """Where the stage writes."""
        return self.folder

    def held_out(self) -> list[Problem]:
        """Return checks of answers to validation questions."""
        return list(self.checks)


def train_judge(
    stage: Stage[ScorerTable],
    checks: SftTable,
    start: Path,
    problems: Sequence[Problem],
    *,
    train: Sequence[LabelledProblem],
    validation: Sequence[LabelledProblem],
) -> tuple[Path, dict[str, object]]:
    """Fine-tune on checks of `problems`, then train by GRPO on checks of the replies in `train`.

    Without a table for GRPO, fine-tune on both. A policy's own mistakes are harder to see than those made by
    rule. Returns the model's directory and the numbers of checks, for the report.
    """
    table = stage.table
    form = table.question
    held_out = tuple(judge_problems_from_replies(form, validation, stage.seed, table.misses, max_wrong=1))
    folder = stage.directory / "generative"
    sft = _stage(stage, "checks", checks, folder / "imitation", held_out)
    policy_samples = train if table.judge is None else ()
    sft_checks = judge_problems_to_imitate(form, problems, policy_samples, sft.seed, table.misses)

    def collect(model: Model, prompter: Prompter) -> Collection:
        return Collection(worked_examples(sft.data, prompter, sft_checks, ()), sft_checks)

    model = sft.directory / "model"
    if not sft.card.exists():
        model = run_sft(sft, start, sft_checks, collect)
    if table.judge is None:
        return model, {"imitated": len(sft_checks)}
    rl = _stage(stage, "judge", table.judge, folder / "reinforcement", held_out)
    rl_checks = judge_problems_from_replies(form, train, rl.seed, table.misses)
    if not rl.card.exists():
        run_grpo(rl, model, rl_checks)
    return rl.directory / "model", {"imitated": len(sft_checks), "reinforced": len(rl_checks)}


def _stage(
    stage: Stage[ScorerTable], name: str, table: Table, folder: Path, checks: tuple[Problem, ...]
) -> JudgeStage[Table]:
    """Return a stage that asks at the held-out questions' budget alone."""
    budgets = {stage.config.held_out.budget: 1.0}
    folder.mkdir(parents=True, exist_ok=True)
    return JudgeStage(stage.run, name, table.model_copy(update={"budgets": budgets}), folder, checks)


def judge_answers(
    stage: Stage[StageTable | ScorerTable],
    directory: Path,
    prompting: JudgePrompting,
    problems: Sequence[Problem],
    answers: Sequence[Sequence[str]],
) -> list[list[float | None]]:
    """Return the judge's belief in every answer to each problem, as in serving; equal answers are asked once.

    None if there is no answer, or no verdict that can be read.
    """
    model, _, prompter = stage.load(directory)
    questions = {
        (problem.id, answer): judge_problem(
            prompting.question, problem, answer, False
        )  # a prompt has no verdict
        for problem, problem_answers in zip(problems, answers, strict=True)
        for answer in problem_answers
        if answer.strip()
    }
    verdicts = sample_completions(
        model,
        prompter,
        [prompter.prompt(question, prompting.budget) for question in questions.values()],
        samples=prompting.rounds,
        temperature=0.0 if prompting.rounds == 1 else 1.0,
        max_tokens=prompting.max_tokens,
        seed=stage.seed,
    )
    beliefs = dict(zip(questions, map(_belief, verdicts), strict=True))
    return [
        [beliefs.get((problem.id, answer)) for answer in problem_answers]
        for problem, problem_answers in zip(problems, answers, strict=True)
    ]


def _belief(verdicts: Sequence[Completion]) -> float | None:
    answers = [extract(verdict.answer) for verdict in verdicts if verdict.finished]
    keys = [answer.key for answer in answers if answer is not None and answer.key in ("yes", "no")]
    return yes_probability(keys.count("yes"), len(keys))
