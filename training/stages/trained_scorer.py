"""What a trained scorer makes of a policy's replies: the table beside its weights says how it is asked."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scorers.gate import GATE_FILE, require_release
from scorers.local_classifier import LocalClassifier
from scorers.trained import ClassifierInput
from training.data.problems import DataError
from training.stages.run import Stage
from training.stages.train_judge import Manner, judged
from training.types import Completion, Problem

__all__ = ["Liking", "liking"]

Liking = Callable[[Sequence[Problem], Sequence[Sequence[Completion]]], list[list[float | None]]]
"""Each reply's probability of being right, uncalibrated; None where the scorer gives none."""


def liking(stage: Stage, directory: Path) -> Liking:
    """The scorer that `thinkgate train scorer` left in a directory, a classifier or a generative judge.

    A judge is asked as serving asks it, with the run's own levels and, where it is an adapter, base model.
    Raises DataError where its table is missing, or its release gate is, or has not passed.
    """
    try:
        text = (directory / "serving.toml").read_text(encoding="utf-8")
        table = tomllib.loads(text)["scorers"]["trained"]
        require_release(f"the scorer in {directory}", directory / GATE_FILE, directory)
        judges = table["kind"] == "judge"
        return _judge(stage, directory, table) if judges else _classifier(directory, table["template"])
    except KeyError as error:
        raise DataError(f"{stage.name}.scorer: {directory / 'serving.toml'} has no {error}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{stage.name}.scorer: {error}") from error


def _judge(stage: Stage, directory: Path, table: Mapping[str, Any]) -> Liking:
    manner = Manner(table["question"], table["effort"], table["rounds"], table["max_tokens"])

    def liked(rows: Sequence[Problem], replies: Sequence[Sequence[Completion]]) -> list[list[float | None]]:
        answers = [[reply.answer for reply in each] for each in replies]
        return judged(stage, directory, manner, rows, answers)

    return liked


def _classifier(directory: Path, template: str) -> Liking:
    def liked(rows: Sequence[Problem], replies: Sequence[Sequence[Completion]]) -> list[list[float | None]]:
        cases = [
            ClassifierInput(row.question, reply.answer, reply.thinking)
            for row, each in zip(rows, replies, strict=True)
            for reply in each
        ]
        classifier = LocalClassifier(directory, template=template)
        try:
            values = iter(asyncio.run(classifier.classify(cases))[0])
        finally:
            classifier.close()
        return [[next(values) for _ in each] for each in replies]

    return liked
