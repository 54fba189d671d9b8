"""The release gate's figures, and what a scorer has to show to pass it."""

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
    """Problems of 8 samples whose answers fall into classes, of which number 0 is right."""
    found = []
    for _ in range(draw(st.integers(1, 5))):
        classes = draw(st.lists(st.integers(0, 3), min_size=8, max_size=8))
        scores = draw(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=8, max_size=8))
        found.append(SampledProblem(tuple(classes), tuple(c == 0 for c in classes), tuple(scores)))
    return found


def scored(problems: list[SampledProblem], score: float | None = None) -> list[SampledProblem]:
    """The same with one score for all, or, without one, with scores that know what is right."""
    return [
        replace(p, scores=tuple(float(right) if score is None else score for right in p.correct))
        for p in problems
    ]


def many(seed: int, *, right: float = 0.3, count: int = 120) -> list[SampledProblem]:
    """Problems on which `right` of the samples are right, and wrong ones often agree."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        classes = [0 if chance.random() < right else chance.choice([1, 1, 2, 3]) for _ in range(8)]
        found.append(SampledProblem(tuple(classes), tuple(c == 0 for c in classes), (0.5,) * 8))
    return found


@given(problems())
def test_only_the_order_of_scores_counts_for_the_auc(given: list[SampledProblem]) -> None:
    """Any growing function of them leaves it; their negatives turn it round."""
    grown = [replace(p, scores=tuple(math.exp(3 * s) for s in p.scores)) for p in given]
    turned = [replace(p, scores=tuple(-s for s in p.scores)) for p in given]
    for auc in (within_problem_auc, pooled_auc):
        value = auc(given)
        assert auc(grown) == value
        if value is not None:
            assert auc(turned) == pytest.approx(1 - value)


@given(problems())
def test_the_auc_of_who_knows_is_one_and_of_who_cannot_tell_a_half(given: list[SampledProblem]) -> None:
    """Where there is one at all: with right and wrong samples of one problem."""
    mixed = any(0 < sum(p.correct) < 8 for p in given)
    assert within_problem_auc(scored(given)) == (1.0 if mixed else None)
    assert within_problem_auc(scored(given, 0.7)) == (0.5 if mixed else None)


def test_telling_problems_apart_is_no_merit_within_them() -> None:
    """The pooled AUC rewards a score that only says how hard the problem is; the gate's doesn't."""
    easy = SampledProblem((0,) * 7 + (1,), (True,) * 7 + (False,), (0.9,) * 8)
    hard = SampledProblem((0,) + (1,) * 7, (True,) + (False,) * 7, (0.1,) * 8)
    assert within_problem_auc([easy, hard]) == 0.5
    assert pooled_auc([easy, hard]) == pytest.approx(0.875)


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_the_base_rate_is_calibrated(labels: list[bool]) -> None:
    """Said of every sample; and certainty is where it is right."""
    rate = fmean(labels)
    assert expected_calibration_error([rate] * len(labels), labels) == pytest.approx(0, abs=1e-9)
    assert brier_score([rate] * len(labels), labels) == pytest.approx(rate * (1 - rate))
    assert expected_calibration_error([float(label) for label in labels], labels) == 0
    assert expected_calibration_error([float(not label) for label in labels], labels) == 1


@given(problems())
def test_equal_scores_vote_as_the_majority_does(given: list[SampledProblem]) -> None:
    """Weighted or best-of-N: nothing is gained, nothing lost."""
    flat = scored(given, 0.5)
    plain = vote_curve(flat, "majority", QUICK)
    assert vote_curve(flat, "weighted", QUICK) == plain
    assert vote_curve(flat, "best", QUICK) == plain


@given(problems())
def test_who_knows_what_is_right_is_never_beaten(given: list[SampledProblem]) -> None:
    """Best-of-N finds a right sample where one was drawn, so its curve can only rise."""
    known = scored(given)
    best, plain = vote_curve(known, "best", QUICK), vote_curve(given, "majority", QUICK)
    for size in QUICK.sizes:
        assert all(x >= y for x, y in zip(best[size], plain[size], strict=True))
    assert all(x <= y for x, y in zip(best[2], best[8], strict=True))
    assert best[8] == [float(any(p.correct)) for p in given]


@given(problems())
def test_one_sample_leaves_no_choice(given: list[SampledProblem]) -> None:
    """At N = 1 every vote is the same."""
    assert vote_curve(given, "best", QUICK)[1] == vote_curve(given, "majority", QUICK)[1]


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_an_interval_lies_within_the_values(values: list[float]) -> None:
    """And is the same for the same seed."""
    low, high = bootstrap_interval(values, QUICK)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert bootstrap_interval(values, QUICK) == (low, high)


def test_a_scorer_that_knows_passes() -> None:
    """All checks, and the report holds the curves."""
    checks, figures = check_gate(scored(many(1)), QUICK)
    assert all(check.passed for check in checks)
    assert figures["curves"]["best"] == figures["curves"]["oracle"]
    assert figures["within_auc"] == 1.0


def test_a_scorer_that_says_nothing_fails() -> None:
    """It gains nothing over the majority, and tells no two samples apart."""
    checks, _ = check_gate(many(2), QUICK)
    failed = {check.name for check in checks if not check.passed}
    assert "within-problem AUC" in failed
    assert "weighted over majority at N=8, lower end" in failed
    assert "best over majority at N=8, lower end" in failed


def failed(given: list[SampledProblem]) -> set[str]:
    """The names of the checks that these problems' scores don't pass, of a scorer with a good AUC."""
    checks, _ = check_gate(given, QUICK)
    auc = next(check for check in checks if check.name == "within-problem AUC")
    assert auc.passed
    assert auc.value >= 0.75
    return {check.name for check in checks if not check.passed}


def test_a_scorer_that_loves_one_wrong_sample_fails_by_its_curve() -> None:
    """A good AUC is not enough where the highest score of all is a mistake: best-of-N finds it."""
    given = [
        replace(
            p, scores=tuple(0.95 if i == p.correct.index(False) else 0.9 * r for i, r in enumerate(p.correct))
        )
        for p in many(3, right=0.4)
        if 0 < sum(p.correct) < 5  # so that one of at least four wrong samples is the mistake
    ]
    assert failed(given) == {
        "best over majority, least gain of any N",
        "best over majority at N=8, lower end",
    }


def test_a_scorer_that_tells_what_the_majority_tells_fails() -> None:
    """Though it makes no mistake: where most samples are right without it, or none are, nothing is gained."""
    easy = SampledProblem((0,) * 5 + (1,) * 3, (True,) * 5 + (False,) * 3, ())
    hopeless = SampledProblem((1,) * 8, (False,) * 8, ())
    assert failed(scored([easy, hopeless] * 20)) == {
        "weighted over majority at N=8, lower end",
        "best over majority at N=8, lower end",
    }


def test_a_gate_needs_something_to_judge() -> None:
    """No problems, or none whose samples may vote, prove nothing."""
    with pytest.raises(ValueError, match="held-out"):
        check_gate([])
    with pytest.raises(ValueError, match="held-out"):
        check_gate([SampledProblem((), (), ())])
