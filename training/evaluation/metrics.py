"""Compute metrics from graded replies: accuracy, cost, and the Pareto frontier of the settings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum, inf, sqrt
from typing import Literal

from training.evaluation.replies import EvaluatedReply
from training.evaluation.settings import EvaluationSetting

__all__ = ["GradingMode", "Proportion", "SettingMetrics", "pareto_frontier", "summarise", "wilson_interval"]

GradingMode = Literal["strict", "lenient"]
Z95 = 1.959964  # the normal quantile that leaves 2.5% on either side


@dataclass(frozen=True, slots=True)
class Proportion:
    """A proportion and its 95% Wilson interval, in percent."""

    percent: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SettingMetrics:
    """The metrics of one setting; tokens, samples and seconds are means per question.

    `reasoning` is the part of the tokens that was spent thinking. `truncated` counts replies that a token
    limit cut off. `undecided` counts replies that the grader could not decide; they count as wrong.
    """

    setting: EvaluationSetting
    questions: int
    strict: Proportion
    lenient: Proportion
    tokens: float
    reasoning: float
    samples: float
    seconds: float
    truncated: int
    undecided: int

    def accuracy(self, mode: GradingMode) -> Proportion:
        """Return the strict or the lenient accuracy."""
        return self.strict if mode == "strict" else self.lenient


def wilson_interval(successes: int, count: int) -> Proportion:
    """Return the proportion with its Wilson score interval (Wilson 1927).

    The interval stays within [0, 100], and keeps a width at 0 and at 100 percent.
    """
    if not count:
        return Proportion(0.0, 0.0, 100.0)
    p, z2 = successes / count, Z95 * Z95
    centre = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * sqrt(p * (1 - p) / count + z2 / (4 * count * count))
    low = 0.0 if not successes else max(0.0, centre - half)
    high = 1.0 if successes == count else min(1.0, centre + half)
    return Proportion(100 * p, 100 * low, 100 * high)


def summarise(
    settings: Iterable[EvaluationSetting], replies: Iterable[EvaluatedReply]
) -> list[SettingMetrics]:
    """Return the metrics of every setting that has replies; replies at other settings are ignored."""
    by_setting: dict[str, list[EvaluatedReply]] = {}
    for reply in replies:
        by_setting.setdefault(reply.setting, []).append(reply)
    return [_metrics(setting, by_setting[setting.name]) for setting in settings if setting.name in by_setting]


def pareto_frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the (cost, accuracy) points on the Pareto frontier, cheapest first.

    A point is dominated by another that costs no more and is no less accurate, and is better in one of the
    two. Equal points all stay.
    """
    best_accuracy, frontier = -inf, list[int]()
    by_cost = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    for index in by_cost:
        if points[index][1] > best_accuracy or (frontier and points[index] == points[frontier[-1]]):
            best_accuracy = points[index][1]
            frontier.append(index)
    return frontier


def _metrics(setting: EvaluationSetting, replies: Sequence[EvaluatedReply]) -> SettingMetrics:
    count = len(replies)

    def mean(values: Iterable[float]) -> float:
        return fsum(values) / count

    return SettingMetrics(
        setting,
        count,
        wilson_interval(sum(reply.strict is True for reply in replies), count),
        wilson_interval(sum(reply.lenient is True for reply in replies), count),
        mean(reply.tokens for reply in replies),
        mean(reply.reasoning for reply in replies),
        mean(reply.samples for reply in replies),
        mean(reply.seconds for reply in replies),
        sum(reply.finish == "length" for reply in replies),
        sum(None in (reply.strict, reply.lenient) for reply in replies),
    )
