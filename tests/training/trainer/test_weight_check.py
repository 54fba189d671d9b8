"""The comparison of a server's log probabilities with the trainer's."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.trainer.weight_check import compare_logprobs

logprobs = st.lists(st.floats(-20, 0), min_size=1, max_size=20)


def test_the_distance_is_taken_in_the_mean_and_at_worst() -> None:
    """A mean distance up to the tolerance agrees."""
    trainer, server = [-1.0, -2.0, -0.5], [-1.1, -2.0, -0.3]
    check = compare_logprobs(trainer, server, tolerance=0.11)
    assert (check.verdict, check.tokens) == ("agrees", 3)
    assert (check.mean, check.worst) == (pytest.approx(0.1), pytest.approx(0.2))
    assert compare_logprobs(trainer, server, tolerance=0.09).verdict == "differs"


@given(logprobs, st.floats(0, 0.04))
def test_small_differences_agree(trainer: list[float], noise: float) -> None:
    """Kernels differ a little; every token counts once."""
    check = compare_logprobs(trainer, [value - noise for value in trainer], tolerance=0.05)
    assert check.verdict == "agrees"
    assert check.mean == pytest.approx(noise, abs=1e-9)
    assert check.tokens == len(trainer)
    shifted = [value - 0.1 for value in trainer]
    assert compare_logprobs(trainer, shifted, tolerance=0.05).verdict == "differs"


@given(logprobs, st.floats(0.001, 3))
def test_a_server_with_old_weights_is_stale(trainer: list[float], step: float) -> None:
    """A server that returns the last sync's logprobs is stale, however small the step; a fresh one is not."""
    previous = [value - step for value in trainer]
    assert compare_logprobs(trainer, previous, previous, tolerance=0.05).verdict == "stale"
    assert compare_logprobs(trainer, trainer, previous, tolerance=0.05).verdict == "agrees"


@pytest.mark.parametrize(
    ("trainer", "server"), [([], []), ([-math.inf], [-1.0]), ([math.nan], [-1.0]), ([-1.0], [math.nan])]
)
def test_nothing_and_infinity_prove_nothing(trainer: list[float], server: list[float]) -> None:
    """No tokens never agree, nor do a token that one side holds impossible and a value that is no number."""
    check = compare_logprobs(trainer, server, tolerance=100.0)
    assert (check.verdict, check.mean) == ("differs", math.inf)


def test_both_sides_have_the_same_tokens() -> None:
    """Anything else is a mistake of the caller."""
    with pytest.raises(ValueError, match="argument 2"):
        compare_logprobs([-1.0], [], tolerance=1.0)
