"""How fast a stage learns that the clock ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from training.trainer.rates import share_of_rate

pytestmark = pytest.mark.training

shares = st.floats(0, 2)
decays = st.sampled_from(["linear", "cosine"])


@given(decays, shares, shares)
def test_the_rate_falls_with_the_time_to_nothing(decay: str, one: float, two: float) -> None:
    """All of it at the start, none from the end of the time on, and never more than before."""
    assert share_of_rate(decay, 0, 9, 0.0) == 1.0
    assert share_of_rate(decay, 0, 9, 1.0) == share_of_rate(decay, 0, 9, 1.5) == 0.0
    early, late = sorted((one, two))
    assert share_of_rate(decay, 0, 9, early) >= share_of_rate(decay, 0, 9, late)


@given(shares, st.integers(0, 40))
def test_a_constant_rate_only_warms_up(spent: float, step: int) -> None:
    """By steps, whatever the time."""
    assert share_of_rate("constant", 20, step, spent) == pytest.approx(min(1.0, step / 20))


def test_half_of_the_time_is_half_of_the_rate() -> None:
    """In both ways of falling; before that the cosine is above the line."""
    for decay in ("linear", "cosine"):
        assert share_of_rate(decay, 0, 1, 0.5) == pytest.approx(0.5)
    assert share_of_rate("cosine", 0, 1, 0.25) > share_of_rate("linear", 0, 1, 0.25) == 0.75
