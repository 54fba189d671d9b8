"""From replies to figures: accuracy, what it cost, and which settings are worth it. Pure."""

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
    """A part of all questions with its 95% Wilson interval, in percent."""

    percent: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SettingMetrics:
    """One setting over all questions that it has replies to; tokens, samples, seconds are means a question.

    `reasoning` is the part of the tokens spent thinking; `truncated` counts replies cut by a
    token limit, `undecided` those the grader could not decide, which count as wrong.
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

    def share(self, by: GradingMode) -> Proportion:
        """The accuracy by one of the two readings."""
        return self.strict if by == "strict" else self.lenient


def wilson_interval(right: int, count: int) -> Proportion:
    """The Wilson score interval (Wilson 1927), which stays in [0, 100] and is no point at either end."""
    if not count:
        return Proportion(0.0, 0.0, 100.0)
    p, z2 = right / count, Z95 * Z95
    centre = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * sqrt(p * (1 - p) / count + z2 / (4 * count * count))
    low = 0.0 if not right else max(0.0, centre - half)
    high = 1.0 if right == count else min(1.0, centre + half)
    return Proportion(100 * p, 100 * low, 100 * high)


def summarise(
    settings: Iterable[EvaluationSetting], replies: Iterable[EvaluatedReply]
) -> list[SettingMetrics]:
    """One figure for each setting that has replies; replies at other settings are passed over."""
    by_name: dict[str, list[EvaluatedReply]] = {}
    for reply in replies:
        by_name.setdefault(reply.setting, []).append(reply)
    return [_figure(setting, by_name[setting.name]) for setting in settings if setting.name in by_name]


def pareto_frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of the (cost, accuracy) points that no other beats, from the cheapest to the dearest.

    A point is beaten by one that costs no more and is no less accurate, and better in one of the
    two; of equal points all stay.
    """
    best, kept = -inf, list[int]()
    ordered = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    for place in ordered:
        if points[place][1] > best or (kept and points[place] == points[kept[-1]]):
            best = points[place][1]
            kept.append(place)
    return kept


def _figure(setting: EvaluationSetting, replies: Sequence[EvaluatedReply]) -> SettingMetrics:
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
