"""The release gate's metrics, and what a scorer must show to pass."""

import math
import random
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.scorer.gate import (
    GateThresholds,
    SampledProblem,
    bootstrap_interval,
    brier_score,
    check_gate,
    expected_calibration_error,
    pooled_auc,
    vote_curve,
    within_problem_auc,
)

QUICK = GateThresholds(shuffles=3, resamples=200, sizes=(1, 2, 4, 8))


@st.composite
def problems(draw: st.DrawFn) -> list[SampledProblem]:
    """Problems of 8 samples, whose answers fall into groups; group 0 is correct."""
    sampled = []
    for _ in range(draw(st.integers(1, 5))):
        groups = draw(st.lists(st.integers(0, 3), min_size=8, max_size=8))
        scores = draw(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=8, max_size=8))
        sampled.append(SampledProblem(tuple(groups), tuple(group == 0 for group in groups), tuple(scores)))
    return sampled


def rescored(problems: list[SampledProblem], score: float | None = None) -> list[SampledProblem]:
    """Return the problems with this score for all samples, or with the scores of a perfect scorer."""
    return [
        replace(p, scores=tuple(float(right) if score is None else score for right in p.correct))
        for p in problems
    ]


def build_problems(seed: int, *, right: float = 0.3, count: int = 120) -> list[SampledProblem]:
    """Build problems with this share of right samples, whose wrong samples often agree."""
    rng = random.Random(seed)
    built = []
    for _ in range(count):
        groups = [0 if rng.random() < right else rng.choice([1, 1, 2, 3]) for _ in range(8)]
        built.append(SampledProblem(tuple(groups), tuple(group == 0 for group in groups), (0.5,) * 8))
    return built


@given(problems())
def test_the_auc_depends_only_on_the_order_of_scores(sampled: list[SampledProblem]) -> None:
    """An increasing function of the scores keeps it; negated scores give 1 minus it."""
    increased = [replace(p, scores=tuple(math.exp(3 * s) for s in p.scores)) for p in sampled]
    negated = [replace(p, scores=tuple(-s for s in p.scores)) for p in sampled]
    for auc in (within_problem_auc, pooled_auc):
        value = auc(sampled)
        assert auc(increased) == value
        if value is not None:
            assert auc(negated) == pytest.approx(1 - value)


@given(problems())
def test_a_perfect_scorer_has_an_auc_of_one_and_a_constant_one_a_half(sampled: list[SampledProblem]) -> None:
    """It is defined only if some problem has correct and wrong samples."""
    mixed = any(0 < sum(p.correct) < 8 for p in sampled)
    assert within_problem_auc(rescored(sampled)) == (1.0 if mixed else None)
    assert within_problem_auc(rescored(sampled, 0.7)) == (0.5 if mixed else None)


def test_telling_problems_apart_does_not_raise_the_auc_within_them() -> None:
    """The pooled AUC rewards a score that only tells hard problems from easy ones; the gate's does not."""
    easy = SampledProblem((0,) * 7 + (1,), (True,) * 7 + (False,), (0.9,) * 8)
    hard = SampledProblem((0,) + (1,) * 7, (True,) + (False,) * 7, (0.1,) * 8)
    assert within_problem_auc([easy, hard]) == 0.5
    assert pooled_auc([easy, hard]) == pytest.approx(0.875)


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_the_base_rate_is_calibrated(labels: list[bool]) -> None:
    """So is certainty about right samples; certainty about wrong ones is the worst."""
    rate = fmean(labels)
    assert expected_calibration_error([rate] * len(labels), labels) == pytest.approx(0, abs=1e-9)
    assert brier_score([rate] * len(labels), labels) == pytest.approx(rate * (1 - rate))
    assert expected_calibration_error([float(label) for label in labels], labels) == 0
    assert expected_calibration_error([float(not label) for label in labels], labels) == 1


@given(problems())
def test_equal_scores_vote_like_the_majority(sampled: list[SampledProblem]) -> None:
    """The weighted vote and best-of-N have the majority's curve."""
    equal = rescored(sampled, 0.5)
    majority = vote_curve(equal, "majority", QUICK)
    assert vote_curve(equal, "weighted", QUICK) == majority
    assert vote_curve(equal, "best", QUICK) == majority


@given(problems())
def test_a_perfect_scorer_is_never_beaten(sampled: list[SampledProblem]) -> None:
    """Its best-of-N finds a right sample if there is one, so its curve never falls."""
    perfect = rescored(sampled)
    best, majority = vote_curve(perfect, "best", QUICK), vote_curve(sampled, "majority", QUICK)
    for size in QUICK.sizes:
        assert all(x >= y for x, y in zip(best[size], majority[size], strict=True))
    assert all(x <= y for x, y in zip(best[2], best[8], strict=True))
    assert best[8] == [float(any(p.correct)) for p in sampled]


@given(problems())
def test_one_sample_leaves_no_choice(sampled: list[SampledProblem]) -> None:
    """At N = 1 all votes agree."""
    assert vote_curve(sampled, "best", QUICK)[1] == vote_curve(sampled, "majority", QUICK)[1]


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_a_bootstrap_interval_lies_within_the_values(values: list[float]) -> None:
    """The same seed gives the same interval."""
    low, high = bootstrap_interval(values, QUICK)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert bootstrap_interval(values, QUICK) == (low, high)


def test_a_perfect_scorer_passes() -> None:
    """It passes all checks, and the report holds the curves."""
    checks, metrics = check_gate(rescored(build_problems(1)), QUICK)
    assert all(check.passed for check in checks)
    assert metrics["curves"]["best"] == metrics["curves"]["oracle"]
    assert metrics["within_auc"] == 1.0


def test_a_constant_scorer_fails() -> None:
    """It gains nothing over the majority, and ranks no sample above another."""
    checks, _ = check_gate(build_problems(2), QUICK)
    failures = {check.name for check in checks if not check.passed}
    assert "within-problem AUC" in failures
    assert "weighted over majority at N=8, lower end" in failures
    assert "best over majority at N=8, lower end" in failures


def failed_checks(sampled: list[SampledProblem]) -> set[str]:
    """Return the names of the failed checks of a scorer whose AUC passes."""
    checks, _ = check_gate(sampled, QUICK)
    auc = next(check for check in checks if check.name == "within-problem AUC")
    assert auc.passed
    assert auc.value >= 0.75
    return {check.name for check in checks if not check.passed}


def test_a_scorer_that_overrates_one_wrong_sample_fails() -> None:
    """A good AUC is not enough if the highest score belongs to a wrong sample: best-of-N picks it."""
    sampled = [
        replace(
            p, scores=tuple(0.95 if i == p.correct.index(False) else 0.9 * r for i, r in enumerate(p.correct))
        )
        for p in build_problems(3, right=0.4)
        if 0 < sum(p.correct) < 5  # at least four wrong samples, of which one is overrated
    ]
    assert failed_checks(sampled) == {
        "best over majority, least gain of any N",
        "best over majority at N=8, lower end",
    }


def test_a_scorer_that_only_agrees_with_the_majority_fails() -> None:
    """Even a perfect scorer gains nothing if most samples are correct anyway, or none are."""
    easy = SampledProblem((0,) * 5 + (1,) * 3, (True,) * 5 + (False,) * 3, ())
    hopeless = SampledProblem((1,) * 8, (False,) * 8, ())
    assert failed_checks(rescored([easy, hopeless] * 20)) == {
        "weighted over majority at N=8, lower end",
        "best over majority at N=8, lower end",
    }


def test_the_gate_needs_samples_that_vote() -> None:
    """No problems, or none whose samples may vote, are an error."""
    with pytest.raises(ValueError, match="held-out"):
        check_gate([])
    with pytest.raises(ValueError, match="held-out"):
        check_gate([SampledProblem((), (), ())])
