"""Accuracies with Wilson intervals, and the Pareto frontier of accuracy against cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.metrics import pareto_frontier, summarise, wilson_interval
from training.evaluation.replies import EvaluatedReply
from training.evaluation.settings import EvaluationSetting

POINTS = st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)), max_size=12)


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether a point costs no more and is no less accurate, and is better in one of the two."""
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@given(POINTS)
def test_the_frontier_is_exactly_the_points_that_none_dominates(points: list[tuple[float, float]]) -> None:
    """A point is on the frontier if and only if no other point dominates it."""
    frontier = pareto_frontier(points)
    undominated = {
        i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)
    }
    assert set(frontier) == undominated
    assert len(frontier) == len(undominated)


@given(POINTS)
def test_the_frontier_is_ordered_by_cost(points: list[tuple[float, float]]) -> None:
    """Neither cost nor accuracy falls along the frontier."""
    frontier = [points[index] for index in pareto_frontier(points)]
    assert frontier == sorted(frontier)
    assert [accuracy for _, accuracy in frontier] == sorted(accuracy for _, accuracy in frontier)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_wilson_interval_contains_its_proportion(counts: tuple[int, int]) -> None:
    """It lies in [0, 100], contains the proportion, has a width, and mirrors that of the failures."""
    successes, count = counts
    interval, mirrored = wilson_interval(successes, count), wilson_interval(count - successes, count)
    assert 0 <= interval.low <= interval.percent <= interval.high <= 100
    assert interval.low < interval.high
    assert interval.low == pytest.approx(100 - mirrored.high)


def test_a_wilson_interval_has_its_published_value() -> None:
    """8 of 10 give 49.0% to 94.3%, as in published calculators; no observation gives 0% to 100%."""
    interval = wilson_interval(8, 10)
    assert (round(interval.low, 1), round(interval.high, 1)) == (49.0, 94.3)
    assert (wilson_interval(0, 0).low, wilson_interval(0, 0).high) == (0, 100)


def test_metrics_are_means_over_a_settings_replies() -> None:
    """Other settings' replies do not count; an undecided reply counts as wrong and is reported."""
    low = EvaluationSetting("low")
    replies = [
        EvaluatedReply("low", "1", True, True, 10, 4, 1, 1.0, "stop", ""),
        EvaluatedReply("low", "2", False, None, 30, 8, 1, 2.0, "length", ""),
        EvaluatedReply("high", "1", True, True, 99, 90, 1, 9.0, "stop", ""),
    ]
    (metrics,) = summarise([low, EvaluationSetting("off")], replies)
    assert (metrics.questions, metrics.tokens, metrics.reasoning, metrics.seconds) == (2, 20, 6, 1.5)
    assert (metrics.strict.percent, metrics.lenient.percent) == (50, 50)
    assert (metrics.truncated, metrics.undecided) == (1, 1)
