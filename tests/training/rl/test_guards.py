"""The guards against divergence and reward hacking."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.rl.guards import (
    Convergence,
    Divergence,
    DivergenceState,
    RewardHacking,
    converged,
    detect_reward_hacking,
    watch_accuracy,
    watch_step,
)
from training.trainer.saved_state import from_json, to_json

RULE = Divergence(fall=0.1, evaluations=2, entropy=0.05, steps=3)
shares = st.integers(0, 100).map(lambda n: n / 100)


def verdicts(accuracies: list[float], rule: Divergence = RULE) -> list[bool]:
    """Return the guard's verdict after each evaluation."""
    state, results = DivergenceState(), []
    for step, accuracy in enumerate(accuracies):
        state, diverged = watch_accuracy(rule, state, accuracy, step)
        results.append(diverged)
    return results


def test_a_lasting_fall_is_divergence() -> None:
    """One bad evaluation is chance, two in a row are not; a smaller fall than the rule's doesn't count."""
    assert verdicts([0.5, 0.4, 0.45, 0.4, 0.39]) == [False, False, False, False, True]
    assert verdicts([0.5, 0.41, 0.41, 0.41]) == [False] * 4


@given(st.lists(shares, max_size=20))
def test_what_never_falls_far_is_left_alone(accuracies: list[float]) -> None:
    """While every evaluation is within the fall of the best so far, the run goes on."""
    falls = [best - now for now, best in zip(accuracies, running_best(accuracies), strict=True)]
    if all(fall < RULE.fall - 0.005 for fall in falls):
        assert not any(verdicts(accuracies))


def running_best(values: list[float]) -> list[float]:
    """Return the largest value so far, at each place."""
    return [max(values[: place + 1]) for place in range(len(values))]


@given(st.lists(shares, max_size=20))
def test_the_best_is_remembered(accuracies: list[float]) -> None:
    """The state names the best accuracy and the first step that had it, also after a restart."""
    state = DivergenceState()
    for step, accuracy in enumerate(accuracies):
        state = from_json(DivergenceState, json.loads(json.dumps(to_json(state))))
        state, _ = watch_accuracy(RULE, state, accuracy, step)
        assert (state.best, state.best_step) == (
            max(accuracies[: step + 1]),
            accuracies.index(state.best or 0.0),
        )


@pytest.mark.parametrize(("loss", "entropy"), [(math.nan, None), (math.inf, 1.0), (0.1, math.nan)])
def test_a_broken_loss_is_divergence_at_once(loss: float, entropy: float | None) -> None:
    """A loss or an entropy that is no number ends the run without a second look."""
    assert watch_step(RULE, DivergenceState(), loss, entropy)[1]


def test_entropy_that_stays_low_is_collapse() -> None:
    """It takes the rule's number of steps in a row under the floor; one without entropy doesn't count."""
    state, results = DivergenceState(), []
    for entropy in (0.01, 0.01, 0.2, 0.01, None, 0.01, 0.01):
        state, diverged = watch_step(RULE, state, 0.1, entropy)
        results.append(diverged)
    assert results == [*[False] * 6, True]


def test_convergence_is_no_gain_over_a_window() -> None:
    """While accuracy rises by more than chance the run goes on; on a plateau or in a fall it ends."""
    rule = Convergence(questions=200, window=2)
    assert not converged(rule, [0.1, 0.2, 0.3])
    assert not converged(rule, [0.1, 0.2, 0.3, 0.4])
    assert converged(rule, [0.1, 0.2, 0.3, 0.4, 0.4, 0.41, 0.4, 0.41])
    assert converged(rule, [0.5, 0.5, 0.2, 0.2])
    assert converged(Convergence(questions=200, window=2, gain=0.3), [0.1, 0.2, 0.3, 0.4])


@given(st.lists(shares, max_size=12), st.integers(1, 4), st.integers(1, 500))
def test_more_questions_see_more(accuracies: list[float], window: int, questions: int) -> None:
    """A gain with few questions is a gain with more; and nothing ends before two windows."""
    few, many = Convergence(questions, window), Convergence(10 * questions, window)
    assert converged(few, accuracies) or not converged(many, accuracies)
    assert len(accuracies) >= 2 * window or not converged(few, accuracies)


def test_reward_that_rises_while_accuracy_falls_is_hacked() -> None:
    """Only both together raise the alarm, over two windows."""
    rule = RewardHacking(window=2)
    up, down = [0.5, 0.5, 0.8, 0.8], [0.5, 0.5, 0.3, 0.3]
    assert detect_reward_hacking(rule, up, down)
    assert not detect_reward_hacking(rule, up, up)
    assert not detect_reward_hacking(rule, down, down)
    assert not detect_reward_hacking(rule, up[1:], down[1:])
