"""Whether a candidate may take over, and how far: the decisions of `thinkgate promote`. Pure."""

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
    "next_share",
    "split_traffic",
]

Targets = tuple[tuple[str, float], ...]
"""An alias's models, each with its share."""

_RESAMPLES = 2000
_ENOUGH_TO_FAIL = 5  # requests before errors alone may end a promotion


@dataclass(frozen=True, slots=True)
class PairedOutcomes:
    """One data set asked of both models: problem by problem, whether each was right."""

    name: str
    trained: bool
    outcomes: tuple[tuple[bool, bool], ...]
    """(current, candidate) for each problem that both have answered."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One data set's figures, in percent and percentage points.

    `low` and `high` bound the difference (candidate - current) at 95%; `p` is the exact
    McNemar test's, of the hypothesis that neither is better.
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
    """The paired percentile bootstrap over problems (Efron 1979), and McNemar's exact test (1947).

    Raises ValueError where there are no problems.
    """
    count = len(paired.outcomes)
    if not count:
        raise ValueError(f"{paired.name}: no question was answered by both")
    gained = sum(new and not old for old, new in paired.outcomes)
    lost = sum(old and not new for old, new in paired.outcomes)
    signs = [1] * gained + [-1] * lost + [0] * (count - gained - lost)
    drawn = random.Random(seed)
    means = sorted(100 * sum(drawn.choices(signs, k=count)) / count for _ in range(resamples))
    old, new = (sum(pair[side] for pair in paired.outcomes) for side in (0, 1))
    return Comparison(
        paired.name,
        paired.trained,
        count,
        100 * old / count,
        100 * new / count,
        100 * (gained - lost) / count,
        means[int(0.025 * (resamples - 1))],
        means[-1 - int(0.025 * (resamples - 1))],
        mcnemar_p_value(gained, lost),
    )


def mcnemar_p_value(gained: int, lost: int) -> float:
    """The exact two-sided p-value: of the problems that differ, half would be gained by chance."""
    differing = gained + lost
    tail = sum(comb(differing, k) for k in range(min(gained, lost) + 1)) / int(2**differing)
    return min(1.0, 2 * tail)


def decide_promotion(
    sets: Sequence[PairedOutcomes], *, gain: float = 0.0, loss: float = 5.0, seed: int = 0
) -> PromotionDecision:
    """Whether the candidate may take over.

    On each trained data set the interval of its difference has to lie above `gain` points (a
    negative one lets through what is no better), on each untouched one above -`loss`: what
    can't be shown to be harmless with so few questions is refused as well.
    """
    comparisons = tuple(compare_outcomes(each, seed=seed) for each in sets)
    reasons = []
    for each in comparisons:
        needed = gain if each.trained else -loss
        if each.low <= needed:
            told = f"{each.difference:+.1f} points (95%: {each.low:+.1f} to {each.high:+.1f})"
            why = "worse" if each.high < needed else f"not shown to be above {needed:+.1f}"
            reasons.append(f"{each.name}: {told} is {why}")
    return PromotionDecision(not reasons, comparisons, tuple(reasons))


def next_share(steps: Sequence[float], done: float) -> float | None:
    """The next share of the candidate's, in percent; None where it has the last one."""
    return next((step for step in steps if step > done), None)


def split_traffic(current: str, candidate: str, percent: float) -> Targets:
    """An alias's targets with so many percent of the requests going to the candidate."""
    return ((current, 100 - percent), (candidate, percent))


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one target did: requests by status, the seconds of `timed` answers, the votes' winning shares."""

    requests: Mapping[str, float]
    seconds: float = 0.0
    timed: float = 0.0
    agreed: float = 0.0
    votes: float = 0.0

    @property
    def total(self) -> float:
        """Requests whose end is the model's or the gateway's doing: all but refused and hung-up ones."""
        return fsum(n for status, n in self.requests.items() if not status.startswith("4"))

    @property
    def failed(self) -> float:
        """Requests that ended with a 5xx."""
        return fsum(n for status, n in self.requests.items() if status.startswith("5"))

    def since(self, before: Traffic) -> Traffic:
        """What was added to an earlier reading of the same counters."""
        left = {status: n - before.requests.get(status, 0.0) for status, n in self.requests.items()}
        return Traffic(
            left,
            self.seconds - before.seconds,
            self.timed - before.timed,
            self.agreed - before.agreed,
            self.votes - before.votes,
        )


@dataclass(frozen=True, slots=True)
class TrafficLimits:
    """What a candidate may do in traffic, next to the current model.

    `errors`: failures in points more; `slower`: mean seconds as a multiple; `agreement`: the
    winners' mean share in votes, in points less; `requests`: so many have to be seen.
    """

    errors: float = 2.0
    slower: float = 1.5
    agreement: float = 10.0
    requests: int = 20


def assess_traffic(
    current: Traffic, candidate: Traffic, limits: TrafficLimits
) -> tuple[Literal["good", "bad", "wait"], str]:
    """Whether the candidate's traffic is good, bad, or too little to tell; with the reason.

    Failures count as soon as they are beyond chance (Wilson's interval lies above what is
    allowed), the means only once there are enough requests on both sides.
    """
    failing = wilson_interval(round(candidate.failed), round(candidate.total))
    usual = 100 * current.failed / current.total if current.total else 0.0
    if candidate.total >= _ENOUGH_TO_FAIL and failing.low > usual + limits.errors:
        return "bad", f"{candidate.failed:g} of {candidate.total:g} requests failed ({usual:.1f}% before)"
    if candidate.total < limits.requests:
        return "wait", f"{candidate.total:g} of {limits.requests} requests seen"
    if min(current.timed, candidate.timed) >= limits.requests:
        usual, now = current.seconds / current.timed, candidate.seconds / candidate.timed
        if now > limits.slower * usual:
            return "bad", f"{now:.2f} s a request in the mean, against {usual:.2f}"
    if min(current.votes, candidate.votes) >= limits.requests:
        usual, now = 100 * current.agreed / current.votes, 100 * candidate.agreed / candidate.votes
        if now < usual - limits.agreement:
            return "bad", f"the winners' mean share in votes is {now:.0f}%, against {usual:.0f}"
    return "good", f"{candidate.total:g} requests, {candidate.failed:g} failed"
