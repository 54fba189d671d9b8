"""The end of a stage."""

import math

import pytest

from training.rl.guards import Convergence, Divergence, DivergenceState
from training.rl.stopping import StoppingRules, after_evaluation, after_step, out_of_time


def stage_end(rules: StoppingRules, accuracies: list[float]) -> tuple[int, str, bool] | None:
    """Return after which evaluation a stage ends, why, and whether it restores the best; None: it goes on."""
    state = DivergenceState()
    for place in range(len(accuracies)):
        state, end = after_evaluation(rules, state, accuracies[: place + 1], place)
        if end is not None:
            return place, end.reason, end.restore_best
    return None


def test_without_rules_nothing_ends_a_stage() -> None:
    """It makes all its steps, whatever happens."""
    assert stage_end(StoppingRules(), [0.9, 0.1, 0.1, 0.1]) is None
    assert after_step(StoppingRules(), DivergenceState(), math.nan, None)[1] is None
    assert out_of_time(StoppingRules(), 1e9) is None


def test_the_wanted_accuracy_ends_a_stage() -> None:
    """It ends at the first evaluation with that accuracy or more."""
    assert stage_end(StoppingRules(until=0.5), [0.2, 0.49, 0.5, 0.9]) == (
        2,
        "held-out accuracy reached 50%",
        False,
    )


def test_a_plateau_ends_a_stage() -> None:
    """It ends as soon as two whole windows show no gain, and not before."""
    rules = StoppingRules(convergence=Convergence(questions=200, window=2))
    assert stage_end(rules, [0.1, 0.3, 0.5, 0.7]) is None
    assert stage_end(rules, [0.1, 0.5, 0.7, 0.7, 0.7, 0.7]) == (5, "held-out accuracy has converged", False)


def test_a_lasting_fall_restores_the_best_checkpoint() -> None:
    """Two evaluations in a row below the best are enough, and go before any other reason to end."""
    rules = StoppingRules(until=0.8, divergence=Divergence(fall=0.1))
    assert stage_end(StoppingRules(divergence=Divergence(fall=0.1)), [0.7, 0.5, 0.7, 0.6]) is None
    assert stage_end(rules, [0.7, 0.55, 0.5]) == (
        2,
        "held-out accuracy fell to 50.0%: restored the best checkpoint",
        True,
    )


@pytest.mark.parametrize(("loss", "entropy"), [(math.nan, 1.0), (math.inf, None), (0.1, math.nan)])
def test_a_broken_loss_restores_the_best_checkpoint(loss: float, entropy: float | None) -> None:
    """The weights are unusable, so the stage doesn't wait for an evaluation."""
    _, end = after_step(StoppingRules(divergence=Divergence()), DivergenceState(), loss, entropy)
    assert end is not None
    assert end.restore_best


def test_the_time_limit_ends_a_stage() -> None:
    """It ends after exactly as many seconds of training as the rules allow."""
    rules = StoppingRules(seconds=60.0)
    assert out_of_time(rules, 59.9) is None
    end = out_of_time(rules, 60.0)
    assert end is not None
    assert (end.reason, end.restore_best) == ("60 seconds spent", False)
