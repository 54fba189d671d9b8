"""The release gate: measure a scorer on held-out problems, and decide whether it may serve. Pure.

Scorers with a pooled AUC of .73 have lost to a plain majority: they distinguished hard problems from easy
ones, not correct replies from wrong ones. The gate therefore takes the AUC within each problem, and
requires that votes with the scorer beat the majority of the same samples.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from scorers.gate import Check
from scorers.types import Answer, Group, Sample, VoteOptions
from scorers.votes import VOTES

__all__ = [
    "GateThresholds",
    "SampledProblem",
    "bootstrap_interval",
    "brier_score",
    "check_gate",
    "expected_calibration_error",
    "pooled_auc",
    "vote_curve",
    "within_problem_auc",
]

_VOTES = ("majority", "weighted", "best")


@dataclass(frozen=True, slots=True)
class SampledProblem:
    """The samples of a held-out problem that may vote: the group, correctness and score of each."""

    groups: tuple[Hashable, ...]
    correct: tuple[bool, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class GateThresholds:
    """What a scorer must reach to pass.

    `auc` is the minimum AUC within problems, `error` the maximum calibration error. At every N of `sizes`
    above 1, the mean accuracy of the weighted vote and of best-of-N must not be below the majority's. At the
    largest N they must be better: the lower end of a bootstrap interval over problems, at `confidence`, must
    lie above 0. Means are over `shuffles` seeded orders of the samples.
    """

    auc: float = 0.75
    error: float = 0.1
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16)
    shuffles: int = 20
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0


def within_problem_auc(problems: Sequence[SampledProblem]) -> float | None:
    """Return the mean AUC over problems that have correct and wrong samples; None if there is none.

    A problem's AUC is the probability that a correct sample scores above a wrong one; ties count half.
    """
    values = (_auc(problem.scores, problem.correct) for problem in problems)
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined else None


def pooled_auc(problems: Sequence[SampledProblem]) -> float | None:
    """Return the AUC over all samples of all problems; it is reported for comparison, because it flatters."""
    scores = [score for problem in problems for score in problem.scores]
    return _auc(scores, [right for problem in problems for right in problem.correct])


def expected_calibration_error(scores: Sequence[float], labels: Sequence[bool], *, bins: int = 10) -> float:
    """Return the expected calibration error, in bins of equal width (Guo et al. 2017, arXiv:1706.04599)."""
    by_bin: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for score, label in zip(scores, labels, strict=True):
        by_bin[min(int(score * bins), bins - 1)].append((score, label))
    gaps = (abs(sum(score - label for score, label in pairs)) for pairs in by_bin.values())
    return sum(gaps) / len(scores)


def brier_score(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Return the mean squared error of the probabilities (Brier 1950)."""
    return fmean((score - label) ** 2 for score, label in zip(scores, labels, strict=True))


def vote_curve(
    problems: Sequence[SampledProblem], vote: str, thresholds: GateThresholds
) -> dict[int, list[float]]:
    """Return each problem's accuracy by N, for a vote of `scorers.votes` over N shuffled samples.

    The order of the samples depends only on the seed and the problem's index. The curves of two votes, or of
    two scorers on the same samples, are therefore paired.
    """
    accuracies: dict[int, list[float]] = {size: [] for size in thresholds.sizes}
    for index, problem in enumerate(problems):
        rng = random.Random(f"{thresholds.seed} {index}")
        orders = [_shuffled_indices(len(problem.correct), rng) for _ in range(thresholds.shuffles)]
        for size in thresholds.sizes:
            accuracies[size].append(fmean(_vote_is_right(problem, vote, order[:size]) for order in orders))
    return accuracies


def bootstrap_interval(values: Sequence[float], thresholds: GateThresholds) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean over problems (Efron 1979)."""
    rng = random.Random(f"{thresholds.seed} bootstrap")
    means = sorted(fmean(rng.choices(values, k=len(values))) for _ in range(thresholds.resamples))
    tail = (1 - thresholds.confidence) / 2
    return means[int(tail * len(means))], means[min(int((1 - tail) * len(means)), len(means) - 1)]


def check_gate(
    problems: Sequence[SampledProblem], thresholds: GateThresholds = GateThresholds()
) -> tuple[tuple[Check, ...], dict[str, Any]]:
    """Return the gate's checks, and all metrics for the report. Raises ValueError if no sample can vote."""
    if not any(problem.correct for problem in problems):
        raise ValueError("the gate needs held-out problems with samples that can vote")
    scores = [score for problem in problems for score in problem.scores]
    labels = [right for problem in problems for right in problem.correct]
    auc, error = within_problem_auc(problems), expected_calibration_error(scores, labels)
    curves = {vote: vote_curve(problems, vote, thresholds) for vote in _VOTES}
    checks = [
        Check("within-problem AUC", _round(auc or 0.0), thresholds.auc, (auc or 0.0) >= thresholds.auc),
        Check("calibration error, at most", _round(error), thresholds.error, error <= thresholds.error),
    ]
    gains = {}
    largest = max(thresholds.sizes)
    for vote in ("weighted", "best"):
        gain = {
            size: [
                voted - plain
                for voted, plain in zip(curves[vote][size], curves["majority"][size], strict=True)
            ]
            for size in thresholds.sizes
        }
        least = min(fmean(gain[size]) for size in thresholds.sizes if size > 1)
        low, high = bootstrap_interval(gain[largest], thresholds)
        checks += [
            Check(f"{vote} over majority, least gain of any N", _round(least), 0.0, least >= 0),
            Check(f"{vote} over majority at N={largest}, lower end", _round(low), 0.0, low > 0),
        ]
        gains[vote] = {"mean": _round(fmean(gain[largest])), "interval": [_round(low), _round(high)]}
    pooled = pooled_auc(problems)
    return tuple(checks), {
        "problems": len(problems),
        "samples": len(scores),
        "mixed_problems": sum(0 < sum(problem.correct) < len(problem.correct) for problem in problems),
        "within_auc": None if auc is None else _round(auc),
        "pooled_auc": None if pooled is None else _round(pooled),
        "calibration_error": _round(error),
        "brier": _round(brier_score(scores, labels)),
        "curves": {vote: _means(curves[vote]) for vote in _VOTES} | {"oracle": _oracle(problems, thresholds)},
        f"gain_at_{largest}": gains,
        "confidence": thresholds.confidence,
    }


def _auc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    right = [score for score, label in zip(scores, labels, strict=True) if label]
    wrong = sorted(score for score, label in zip(scores, labels, strict=True) if not label)
    if not right or not wrong:
        return None
    beaten = sum(bisect_left(wrong, score) + bisect_right(wrong, score) for score in right)
    return beaten / (2 * len(right) * len(wrong))


def _shuffled_indices(count: int, rng: random.Random) -> list[int]:
    order = list(range(count))
    rng.shuffle(order)
    return order


def _vote_is_right(problem: SampledProblem, vote: str, order: Sequence[int]) -> bool:
    """Return whether the vote over these samples, finished in this order, picks a correct one."""
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i in order:
        members[problem.groups[i]].append(i)
    groups = [Group(Answer("", key), tuple(group), float(len(group))) for key, group in members.items()]
    samples = [Sample(i, "") for i in order]
    options = VoteOptions({i: problem.scores[i] for i in order})
    winner = VOTES[vote](groups, samples, options).winner
    return winner is not None and problem.correct[winner]


def _oracle(problems: Sequence[SampledProblem], thresholds: GateThresholds) -> dict[str, float]:
    """Return the best-of-N curve of a perfect scorer."""
    perfect = [
        SampledProblem(problem.groups, problem.correct, tuple(map(float, problem.correct)))
        for problem in problems
    ]
    return _means(vote_curve(perfect, "best", thresholds))


def _means(accuracies: Mapping[int, Sequence[float]]) -> dict[str, float]:
    return {str(size): _round(fmean(values)) for size, values in accuracies.items()}


def _round(value: float) -> float:
    return round(value, 4)
