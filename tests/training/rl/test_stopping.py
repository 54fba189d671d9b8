"""When a stage ends."""

import math

import pytest

from training.rl.guards import Convergence, Divergence, DivergenceState
from training.rl.stopping import Rules, after_evaluation, after_step, out_of_time


def ended(rules: Rules, accuracies: list[float]) -> tuple[int, str, bool] | None:
    """After which of the evaluations a stage ends, why, and whether it goes back; None: not at all."""
    state = DivergenceState()
    for place in range(len(accuracies)):
        state, ending = after_evaluation(rules, state, accuracies[: place + 1], place)
        if ending is not None:
            return place, ending.reason, ending.gone_wrong
    return None


def test_without_rules_nothing_ends_a_stage() -> None:
    """All steps are made, whatever happens."""
    assert ended(Rules(), [0.9, 0.1, 0.1, 0.1]) is None
    assert after_step(Rules(), DivergenceState(), math.nan, None)[1] is None
    assert out_of_time(Rules(), 1e9) is None


def test_an_accuracy_that_is_reached_ends_it() -> None:
    """At the first evaluation that has it, the exact value included."""
    assert ended(Rules(until=0.5), [0.2, 0.49, 0.5, 0.9]) == (2, "held-out accuracy reached 50%", False)


def test_a_plateau_ends_it() -> None:
    """As soon as two whole windows show no gain, and not before."""
    rules = Rules(convergence=Convergence(questions=200, window=2))
    assert ended(rules, [0.1, 0.3, 0.5, 0.7]) is None
    assert ended(rules, [0.1, 0.5, 0.7, 0.7, 0.7, 0.7]) == (5, "held-out accuracy has converged", False)


def test_a_lasting_fall_goes_back_whatever_else_is_reached() -> None:
    """Two evaluations in a row below the best by the fall; an aim that is met all the same comes after."""
    rules = Rules(until=0.8, divergence=Divergence(fall=0.1))
    assert ended(Rules(divergence=Divergence(fall=0.1)), [0.7, 0.5, 0.7, 0.6]) is None
    assert ended(rules, [0.7, 0.55, 0.5]) == (
        2,
        "held-out accuracy fell to 50.0%: went back to the best",
        True,
    )


@pytest.mark.parametrize(("loss", "entropy"), [(math.nan, 1.0), (math.inf, None), (0.1, math.nan)])
def test_what_is_no_number_goes_back_at_once(loss: float, entropy: float | None) -> None:
    """The weights are spoilt: no evaluation is waited for."""
    _, ending = after_step(Rules(divergence=Divergence()), DivergenceState(), loss, entropy)
    assert ending is not None
    assert ending.gone_wrong


def test_time_that_is_spent_ends_it() -> None:
    """The seconds are those of training; exactly as many as were given are enough."""
    rules = Rules(seconds=60.0)
    assert out_of_time(rules, 59.9) is None
    ending = out_of_time(rules, 60.0)
    assert ending is not None
    assert (ending.reason, ending.gone_wrong) == ("60 seconds spent", False)
