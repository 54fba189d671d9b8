"""Scores a policy's replies with a trained scorer, as the settings beside its weights say."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scorers.gate import GATE_FILE, require_release
from scorers.local_classifier import LocalClassifier
from scorers.trained import ClassifierInput
from training.config import StageTable
from training.data.problems import DataError
from training.stages.stage import Stage
from training.stages.train_judge import JudgePrompting, judge_answers
from training.types import Completion, Problem

__all__ = ["ScoreCompletions", "load_scorer"]

ScoreCompletions = Callable[[Sequence[Problem], Sequence[Sequence[Completion]]], list[list[float | None]]]
"""Returns each reply's probability of being right, uncalibrated; None if the scorer gives none."""


def load_scorer(stage: Stage[StageTable], directory: Path) -> ScoreCompletions:
    """Return the scorer that `thinkgate train scorer` left in a directory.

    It is a classifier or a generative judge. A judge is asked as serving asks it, with the run's own levels
    and, if it is an adapter, base model. Raises DataError if its settings or its release gate are missing, or
    the gate has not passed.
    """
    try:
        text = (directory / "serving.toml").read_text(encoding="utf-8")
        table = tomllib.loads(text)["scorers"]["trained"]
        require_release(f"the scorer in {directory}", directory / GATE_FILE, directory)
        if table["kind"] == "judge":
            return _judge(stage, directory, table)
        return _classifier(directory, table["template"])
    except KeyError as error:
        raise DataError(f"{stage.name}.scorer: {directory / 'serving.toml'} has no {error}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{stage.name}.scorer: {error}") from error


def _judge(stage: Stage[StageTable], directory: Path, table: Mapping[str, Any]) -> ScoreCompletions:
    budget = table["effort"] if "effort" in table else table["budget"]  # its name in files of version 0.1
    prompting = JudgePrompting(table["question"], budget, table["rounds"], table["max_tokens"])

    def score(
        problems: Sequence[Problem], samples: Sequence[Sequence[Completion]]
    ) -> list[list[float | None]]:
        answers = [[reply.answer for reply in replies] for replies in samples]
        return judge_answers(stage, directory, prompting, problems, answers)

    return score


def _classifier(directory: Path, template: str) -> ScoreCompletions:
    def score(
        problems: Sequence[Problem], samples: Sequence[Sequence[Completion]]
    ) -> list[list[float | None]]:
        cases = [
            ClassifierInput(problem.question, reply.answer, reply.thinking)
            for problem, replies in zip(problems, samples, strict=True)
            for reply in replies
        ]
        classifier = LocalClassifier(directory, template=template)
        try:
            values = iter(asyncio.run(classifier.classify(cases))[0])
        finally:
            classifier.close()
        return [[next(values) for _ in replies] for replies in samples]

    return score
