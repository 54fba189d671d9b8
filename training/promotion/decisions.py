"""The decisions of `thinkgate promote`: whether a candidate may take over, and how far. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, fsum
from typing import Literal

from training.evaluation.metrics import wilson_interval

__all__ = [
    "Comparison",
    "PairedOutcomes",
    "PromotionDecision",
    "Targets",
    "Traffic",
    "TrafficLimits",
    "assess_traffic",
    "compare_outcomes",
    "decide_promotion",
    "mcnemar_p_value",
    "next_share",
    "split_traffic",
]

Targets = tuple[tuple[str, float], ...]
"""The models behind an alias, each with its share of the traffic."""

_RESAMPLES = 2000
_MIN_REQUESTS_TO_FAIL = 5  # before failures alone can end a promotion


@dataclass(frozen=True, slots=True)
class PairedOutcomes:
    """Both models on one data set: for each problem, whether each of them was correct."""

    name: str
    trained: bool
    outcomes: tuple[tuple[bool, bool], ...]
    """(current, candidate) for each problem that both have answered."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison on one data set, in percent and percentage points.

    `low` and `high` are the 95% interval of the difference (candidate - current). `p` is the p-value of
    the exact McNemar test; its null hypothesis is that neither model is better.
    """

    name: str
    trained: bool
    questions: int
    current: float
    candidate: float
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class PromotionDecision:
    """Whether the candidate may take over; `reasons` say why not, one sentence a data set."""

    passed: bool
    comparisons: tuple[Comparison, ...]
    reasons: tuple[str, ...] = ()


def compare_outcomes(paired: PairedOutcomes, *, seed: int = 0, resamples: int = _RESAMPLES) -> Comparison:
    """Compare two models by the paired percentile bootstrap over problems (Efron 1979) and McNemar's test.

    Raises ValueError if there are no problems.
    """
    count = len(paired.outcomes)
    if not count:
        raise ValueError(f"{paired.name}: both models answered no common question")
    gained = sum(candidate and not current for current, candidate in paired.outcomes)
    lost = sum(current and not candidate for current, candidate in paired.outcomes)
    differences = [1] * gained + [-1] * lost + [0] * (count - gained - lost)
    rng = random.Random(seed)
    means = sorted(100 * sum(rng.choices(differences, k=count)) / count for _ in range(resamples))
    current, candidate = (sum(pair[model] for pair in paired.outcomes) for model in (0, 1))
    return Comparison(
        paired.name,
        paired.trained,
        count,
        100 * current / count,
        100 * candidate / count,
        100 * (gained - lost) / count,
        means[int(0.025 * (resamples - 1))],
        means[-1 - int(0.025 * (resamples - 1))],
        mcnemar_p_value(gained, lost),
    )


def mcnemar_p_value(gained: int, lost: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947).

    By chance, the candidate would gain half of the problems on which the models differ.
    """
    discordant = gained + lost
    tail = sum(comb(discordant, k) for k in range(min(gained, lost) + 1)) / int(2**discordant)
    return min(1.0, 2 * tail)


def decide_promotion(
    data_sets: Sequence[PairedOutcomes], *, min_gain: float = 0.0, max_loss: float = 5.0, seed: int = 0
) -> PromotionDecision:
    """Decide whether the candidate may take over.

    On each trained data set the interval of the difference must lie above `min_gain` points. A negative
    `min_gain` lets through a candidate that is no better. On each untouched data set the interval must lie
    above -`max_loss`: a candidate is also refused if too few questions can show that it is harmless.
    """
    comparisons = tuple(compare_outcomes(paired, seed=seed) for paired in data_sets)
    reasons = []
    for comparison in comparisons:
        threshold = min_gain if comparison.trained else -max_loss
        if comparison.low <= threshold:
            interval = f"(95%: {comparison.low:+.1f} to {comparison.high:+.1f})"
            why = "worse" if comparison.high < threshold else f"not shown to be above {threshold:+.1f}"
            reasons.append(f"{comparison.name}: {comparison.difference:+.1f} points {interval} is {why}")
    return PromotionDecision(not reasons, comparisons, tuple(reasons))


def next_share(steps: Sequence[float], share: float) -> float | None:
    """Return the candidate's next share in percent, or None after the last step."""
    return next((step for step in steps if step > share), None)


def split_traffic(current: str, candidate: str, percent: float) -> Targets:
    """Return targets that send this percentage of the requests to the candidate."""
    return ((current, 100 - percent), (candidate, percent))


@dataclass(frozen=True, slots=True)
class Traffic:
    """The traffic of one target.

    `requests` counts requests by status. `seconds` is the total time of the `timed` replies, and `agreement`
    the total of the winners' shares in the `votes`.
    """

    requests: Mapping[str, float]
    seconds: float = 0.0
    timed: float = 0.0
    agreement: float = 0.0
    votes: float = 0.0

    @property
    def total(self) -> float:
        """Requests that the model or the gateway ended: all but those refused or cancelled (4xx)."""
        return fsum(n for status, n in self.requests.items() if not status.startswith("4"))

    @property
    def failed(self) -> float:
        """Requests that ended with a 5xx."""
        return fsum(n for status, n in self.requests.items() if status.startswith("5"))

    def since(self, before: Traffic) -> Traffic:
        """Return the increase over an earlier reading of the same counters."""
        requests = {status: n - before.requests.get(status, 0.0) for status, n in self.requests.items()}
        return Traffic(
            requests,
            self.seconds - before.seconds,
            self.timed - before.timed,
            self.agreement - before.agreement,
            self.votes - before.votes,
        )


@dataclass(frozen=True, slots=True)
class TrafficLimits:
    """How much worse than the current model a candidate's traffic may be.

    `failure_points`: additional failures, in percentage points. `slowdown`: mean seconds, as a multiple.
    `agreement_points`: drop of the winners' mean share in votes, in percentage points. `min_requests`:
    requests to see before a decision.
    """

    failure_points: float = 2.0
    slowdown: float = 1.5
    agreement_points: float = 10.0
    min_requests: int = 20


def assess_traffic(
    current: Traffic, candidate: Traffic, limits: TrafficLimits
) -> tuple[Literal["good", "bad", "wait"], str]:
    """Return whether the candidate's traffic is good, bad, or too little to tell, with the reason.

    Failures count as soon as they exceed chance, when their Wilson interval lies above the limit. Means count
    only when both models have enough requests.
    """
    failure_rate = wilson_interval(round(candidate.failed), round(candidate.total))
    baseline = 100 * current.failed / current.total if current.total else 0.0
    if candidate.total >= _MIN_REQUESTS_TO_FAIL and failure_rate.low > baseline + limits.failure_points:
        return "bad", f"{candidate.failed:g} of {candidate.total:g} requests failed ({baseline:.1f}% before)"
    if candidate.total < limits.min_requests:
        return "wait", f"{candidate.total:g} of {limits.min_requests} requests seen"
    if min(current.timed, candidate.timed) >= limits.min_requests:
        baseline, mean = current.seconds / current.timed, candidate.seconds / candidate.timed
        if mean > limits.slowdown * baseline:
            return "bad", f"{mean:.2f} s a request on average, against {baseline:.2f}"
    if min(current.votes, candidate.votes) >= limits.min_requests:
        baseline = 100 * current.agreement / current.votes
        mean = 100 * candidate.agreement / candidate.votes
        if mean < baseline - limits.agreement_points:
            return "bad", f"the winners' mean share in votes is {mean:.0f}%, against {baseline:.0f}"
    return "good", f"{candidate.total:g} requests, {candidate.failed:g} failed"
