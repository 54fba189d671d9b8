"""What a scorer is worth on held-out problems, and whether that is enough to serve it.

Scorers with a pooled AUC of .73 have lost to a plain majority: they told hard problems from easy
ones, not right replies from wrong ones. So the AUC counted here is taken within each problem, and the
votes that a scorer is for must beat the majority of the same samples. All is pure.
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
    """A held-out problem's samples that may vote: each one's class, whether it is right, its score."""

    classes: tuple[Hashable, ...]
    correct: tuple[bool, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class GateThresholds:
    """What a scorer has to reach.

    `auc` is the least AUC within problems, `error` the greatest calibration error. At every N of
    `sizes` above 1 the weighted vote and best-of-N must on average not be worse than the majority, and
    at the largest N better, with the lower end of a bootstrap interval over problems (at
    `confidence`) above 0. Means are over `shuffles` seeded orders of the samples.
    """

    auc: float = 0.75
    error: float = 0.1
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16)
    shuffles: int = 20
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0


def within_problem_auc(problems: Sequence[SampledProblem]) -> float | None:
    """The mean AUC over the problems that have right and wrong samples; None where there is none.

    A problem's is the chance that a right sample of it scores above a wrong one, ties counting half.
    """
    values = (_auc(problem.scores, problem.correct) for problem in problems)
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def pooled_auc(problems: Sequence[SampledProblem]) -> float | None:
    """The AUC over all samples of all problems: told beside the other, because it flatters."""
    scores = [score for problem in problems for score in problem.scores]
    return _auc(scores, [right for problem in problems for right in problem.correct])


def expected_calibration_error(scores: Sequence[float], labels: Sequence[bool], *, bins: int = 10) -> float:
    """The expected calibration error over bins of equal width (Guo et al. 2017, arXiv:1706.04599)."""
    held: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for score, label in zip(scores, labels, strict=True):
        held[min(int(score * bins), bins - 1)].append((score, label))
    gaps = (abs(sum(score - label for score, label in each)) for each in held.values())
    return sum(gaps) / len(scores)


def brier_score(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """The mean squared error of the probabilities (Brier 1950)."""
    return fmean((score - label) ** 2 for score, label in zip(scores, labels, strict=True))


def vote_curve(problems: Sequence[SampledProblem], vote: str, rule: GateThresholds) -> dict[int, list[float]]:
    """By N each problem's accuracy under a vote of `scorers.votes`, over the first N of shuffled samples.

    The orders depend on the rule's seed and the problem's place alone, so the curves of two votes, or of
    two scorers on the same samples, are paired.
    """
    found: dict[int, list[float]] = {size: [] for size in rule.sizes}
    for place, problem in enumerate(problems):
        chance = random.Random(f"{rule.seed} {place}")
        orders = [_shuffled(len(problem.correct), chance) for _ in range(rule.shuffles)]
        for size in rule.sizes:
            found[size].append(fmean(_elected(problem, vote, order[:size]) for order in orders))
    return found


def bootstrap_interval(values: Sequence[float], rule: GateThresholds) -> tuple[float, float]:
    """The percentile bootstrap's interval of the mean, resampling problems (Efron 1979)."""
    chance = random.Random(f"{rule.seed} bootstrap")
    means = sorted(fmean(chance.choices(values, k=len(values))) for _ in range(rule.resamples))
    tail = (1 - rule.confidence) / 2
    return means[int(tail * len(means))], means[min(int((1 - tail) * len(means)), len(means) - 1)]


def check_gate(
    problems: Sequence[SampledProblem], rule: GateThresholds = GateThresholds()
) -> tuple[tuple[Check, ...], dict[str, Any]]:
    """The gate's checks, and all figures for the report. Raises ValueError without problems."""
    if not any(problem.correct for problem in problems):
        raise ValueError("the gate needs held-out problems with samples that can vote")
    scores = [score for problem in problems for score in problem.scores]
    labels = [right for problem in problems for right in problem.correct]
    auc, error = within_problem_auc(problems), expected_calibration_error(scores, labels)
    curves = {vote: vote_curve(problems, vote, rule) for vote in _VOTES}
    checks = [
        Check("within-problem AUC", _rounded(auc or 0.0), rule.auc, (auc or 0.0) >= rule.auc),
        Check("calibration error, at most", _rounded(error), rule.error, error <= rule.error),
    ]
    gains = {}
    most = max(rule.sizes)
    for vote in ("weighted", "best"):
        gain = {
            size: [x - y for x, y in zip(curves[vote][size], curves["majority"][size], strict=True)]
            for size in rule.sizes
        }
        least = min(fmean(gain[size]) for size in rule.sizes if size > 1)
        low, high = bootstrap_interval(gain[most], rule)
        checks += [
            Check(f"{vote} over majority, least gain of any N", _rounded(least), 0.0, least >= 0),
            Check(f"{vote} over majority at N={most}, lower end", _rounded(low), 0.0, low > 0),
        ]
        gains[vote] = {"mean": _rounded(fmean(gain[most])), "interval": [_rounded(low), _rounded(high)]}
    pooled = pooled_auc(problems)
    return tuple(checks), {
        "problems": len(problems),
        "samples": len(scores),
        "mixed_problems": sum(0 < sum(problem.correct) < len(problem.correct) for problem in problems),
        "within_auc": None if auc is None else _rounded(auc),
        "pooled_auc": None if pooled is None else _rounded(pooled),
        "calibration_error": _rounded(error),
        "brier": _rounded(brier_score(scores, labels)),
        "curves": {vote: _means(curves[vote]) for vote in _VOTES} | {"oracle": _oracle(problems, rule)},
        f"gain_at_{most}": gains,
        "confidence": rule.confidence,
    }


def _auc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    right = [score for score, label in zip(scores, labels, strict=True) if label]
    wrong = sorted(score for score, label in zip(scores, labels, strict=True) if not label)
    if not right or not wrong:
        return None
    beaten = sum(bisect_left(wrong, score) + bisect_right(wrong, score) for score in right)
    return beaten / (2 * len(right) * len(wrong))


def _shuffled(count: int, chance: random.Random) -> list[int]:
    order = list(range(count))
    chance.shuffle(order)
    return order


def _elected(problem: SampledProblem, vote: str, order: Sequence[int]) -> bool:
    """Whether the vote over these samples, finished in this order, picks a right one."""
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i in order:
        members[problem.classes[i]].append(i)
    groups = [Group(Answer("", key), tuple(each), float(len(each))) for key, each in members.items()]
    samples = [Sample(i, "") for i in order]
    ballot = VoteOptions({i: problem.scores[i] for i in order})
    winner = VOTES[vote](groups, samples, ballot).winner
    return winner is not None and problem.correct[winner]


def _oracle(problems: Sequence[SampledProblem], rule: GateThresholds) -> dict[str, float]:
    """What a scorer without fault would reach: its best-of-N."""
    perfect = [
        SampledProblem(each.classes, each.correct, tuple(map(float, each.correct))) for each in problems
    ]
    return _means(vote_curve(perfect, "best", rule))


def _means(found: Mapping[int, Sequence[float]]) -> dict[str, float]:
    return {str(size): _rounded(fmean(values)) for size, values in found.items()}


def _rounded(value: float) -> float:
    return round(value, 4)
