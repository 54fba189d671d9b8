"""The learning-rate schedule of a stage that the clock ends."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from training.trainer.learning_rate import schedule_factor

pytestmark = pytest.mark.training

shares = st.floats(0, 2)
decays = st.sampled_from(["linear", "cosine"])


@given(decays, shares, shares)
def test_the_rate_falls_to_zero_with_the_time(
    decay: Literal["linear", "cosine"], one: float, two: float
) -> None:
    """It is whole at the start, 0 from the end of the time on, and never rises."""
    assert schedule_factor(decay, 0, 9, 0.0) == 1.0
    assert schedule_factor(decay, 0, 9, 1.0) == schedule_factor(decay, 0, 9, 1.5) == 0.0
    early, late = sorted((one, two))
    assert schedule_factor(decay, 0, 9, early) >= schedule_factor(decay, 0, 9, late)


@given(decays, st.integers(0, 40))
def test_the_rate_warms_up_by_steps(decay: Literal["linear", "cosine"], step: int) -> None:
    """While no time is spent."""
    assert schedule_factor(decay, 20, step, 0.0) == pytest.approx(min(1.0, step / 20))


def test_half_of_the_time_is_half_of_the_rate() -> None:
    """For both kinds of decay; before that the cosine is above the line."""
    for decay in ("linear", "cosine"):
        assert schedule_factor(decay, 0, 1, 0.5) == pytest.approx(0.5)
    assert schedule_factor("cosine", 0, 1, 0.25) > schedule_factor("linear", 0, 1, 0.25) == 0.75
