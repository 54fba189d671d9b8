"""Accuracy with its interval, and which settings are worth their cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.metrics import pareto_frontier, summarise, wilson_interval
from training.evaluation.replies import EvaluatedReply
from training.evaluation.settings import EvaluationSetting

POINTS = st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)), max_size=12)


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Costs no more, is no less accurate, and better in one of the two."""
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@given(POINTS)
def test_nothing_on_the_frontier_is_beaten_and_all_else_is(points: list[tuple[float, float]]) -> None:
    """A place is on the frontier exactly where no point beats it."""
    kept = pareto_frontier(points)
    unbeaten = {i for i, point in enumerate(points) if not any(beats(other, point) for other in points)}
    assert set(kept) == unbeaten
    assert len(kept) == len(unbeaten)


@given(POINTS)
def test_the_frontier_goes_from_cheap_to_dear(points: list[tuple[float, float]]) -> None:
    """Along it neither cost nor accuracy ever falls."""
    along = [points[place] for place in pareto_frontier(points)]
    assert along == sorted(along)
    assert [accuracy for _, accuracy in along] == sorted(accuracy for _, accuracy in along)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_wilson_interval_holds_its_share(counts: tuple[int, int]) -> None:
    """The interval lies in [0, 100], holds the share, is never a point, and mirrors the wrong ones'."""
    right, count = counts
    share, mirrored = wilson_interval(right, count), wilson_interval(count - right, count)
    assert 0 <= share.low <= share.percent <= share.high <= 100
    assert share.low < share.high
    assert share.low == pytest.approx(100 - mirrored.high)


def test_wilson_at_a_known_place() -> None:
    """8 of 10: 49.0% to 94.3%, as published calculators have it; nothing asked leaves everything open."""
    share = wilson_interval(8, 10)
    assert (round(share.low, 1), round(share.high, 1)) == (49.0, 94.3)
    assert (wilson_interval(0, 0).low, wilson_interval(0, 0).high) == (0, 100)


def test_a_figure_is_its_settings_replies() -> None:
    """Means over a setting's own replies; an undecided answer counts as wrong and is told."""
    low = EvaluationSetting("low")
    replies = [
        EvaluatedReply("low", "1", True, True, 10, 4, 1, 1.0, "stop", ""),
        EvaluatedReply("low", "2", False, None, 30, 8, 1, 2.0, "length", ""),
        EvaluatedReply("high", "1", True, True, 99, 90, 1, 9.0, "stop", ""),
    ]
    (figure,) = summarise([low, EvaluationSetting("off")], replies)
    assert (figure.questions, figure.tokens, figure.reasoning, figure.seconds) == (2, 20, 6, 1.5)
    assert (figure.strict.percent, figure.lenient.percent) == (50, 50)
    assert (figure.truncated, figure.undecided) == (1, 1)
