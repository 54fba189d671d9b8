"""The reward of a preference model, kept within bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from training.types import Completion, Problem

__all__ = ["Preference", "PreferenceModel"]


class PreferenceModel(Protocol):
    """A Bradley-Terry reward model, loaded elsewhere: how much people would like each reply."""

    def __call__(self, questions: Sequence[str], answers: Sequence[str]) -> Sequence[float]:
        """Return one score for each pair, of any size: two scores differ by the log-odds of a preference."""
        ...


@dataclass(frozen=True, slots=True)
class Preference:
    """The model's score of the answer, without the thinking, squashed into (0, 1) by the logistic function.

    An unbounded score would outweigh every verifiable reward as soon as the policy finds where the model is
    wrong. Here the gain of ever higher scores ends. `centre` is the score that gives 0.5, as the mean over
    replies of the start policy. A truncated or empty reply gets 0.0. None where the score is no number.
    """

    model: PreferenceModel
    centre: float = 0.0

    def __call__(self, problem: Problem, completions: Sequence[Completion]) -> list[float | None]:
        """See `training.types.Reward`."""
        indices = [
            index for index, reply in enumerate(completions) if reply.finished and reply.answer.strip()
        ]
        answers = [completions[index].answer for index in indices]
        scores = self.model([problem.question] * len(answers), answers) if answers else ()
        rewards = {index: _squash(score - self.centre) for index, score in zip(indices, scores, strict=True)}
        return [rewards.get(index, 0.0) for index in range(len(completions))]


def _squash(score: float) -> float | None:
    return None if math.isnan(score) else (1 + math.tanh(score / 2)) / 2
