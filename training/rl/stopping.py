"""When a stage ends: what an evaluation, a step and the clock say to its rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.rl.guards import Convergence, Divergence, DivergenceState, converged, watch_accuracy, watch_step

__all__ = ["Ending", "Rules", "after_evaluation", "after_step", "out_of_time"]


@dataclass(frozen=True, slots=True)
class Rules:
    """When a stage ends before its steps are done, and when it has gone wrong.

    `until` is a held-out accuracy, `seconds` time spent in training, evaluations left out.
    """

    until: float | None = None
    seconds: float | None = None
    convergence: Convergence | None = None
    divergence: Divergence | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a stage ends; `gone_wrong` that the weights of the best evaluation are to be gone back to."""

    reason: str
    gone_wrong: bool = False


def after_evaluation(
    rules: Rules, state: DivergenceState, accuracies: Sequence[float], step: int
) -> tuple[DivergenceState, Ending | None]:
    """What the last of the evaluations so far says; a fall goes before an aim that was reached."""
    accuracy = accuracies[-1]
    if rules.divergence is not None:
        state, wrong = watch_accuracy(rules.divergence, state, accuracy, step)
        if wrong:
            return state, Ending(f"held-out accuracy fell to {accuracy:.1%}: went back to the best", True)
    if rules.until is not None and accuracy >= rules.until:
        return state, Ending(f"held-out accuracy reached {rules.until:.0%}")
    if rules.convergence is not None and converged(rules.convergence, accuracies):
        return state, Ending("held-out accuracy has converged")
    return state, None


def after_step(
    rules: Rules, state: DivergenceState, loss: float, entropy: float | None
) -> tuple[DivergenceState, Ending | None]:
    """What a step's loss and entropy say."""
    if rules.divergence is None:
        return state, None
    state, wrong = watch_step(rules.divergence, state, loss, entropy)
    return state, Ending("the loss or the entropy went wrong: went back to the best", True) if wrong else None


def out_of_time(rules: Rules, trained: float) -> Ending | None:
    """Whether the seconds spent in training are as many as were given."""
    if rules.seconds is None or trained < rules.seconds:
        return None
    return Ending(f"{rules.seconds:.0f} seconds spent")
