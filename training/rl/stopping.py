"""The end of a stage: early stopping, divergence and the time limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.rl.guards import Convergence, Divergence, DivergenceState, converged, watch_accuracy, watch_step

__all__ = ["StageEnd", "StoppingRules", "after_evaluation", "after_step", "out_of_time"]


@dataclass(frozen=True, slots=True)
class StoppingRules:
    """The rules that end a stage before its steps are done.

    `until` is a held-out accuracy. `seconds` limits the time spent in training, without evaluations.
    """

    until: float | None = None
    seconds: float | None = None
    convergence: Convergence | None = None
    divergence: Divergence | None = None


@dataclass(frozen=True, slots=True)
class StageEnd:
    """Why a stage ends, and whether to restore the best checkpoint, because the run has diverged."""

    reason: str
    restore_best: bool = False


def after_evaluation(
    rules: StoppingRules, state: DivergenceState, accuracies: Sequence[float], step: int
) -> tuple[DivergenceState, StageEnd | None]:
    """Return the state after an evaluation, and the stage's end if it is due. `accuracies` are all so far.

    Divergence goes before an accuracy that was reached.
    """
    accuracy = accuracies[-1]
    if rules.divergence is not None:
        state, diverged = watch_accuracy(rules.divergence, state, accuracy, step)
        if diverged:
            return state, StageEnd(
                f"held-out accuracy fell to {accuracy:.1%}: restored the best checkpoint", True
            )
    if rules.until is not None and accuracy >= rules.until:
        return state, StageEnd(f"held-out accuracy reached {rules.until:.0%}")
    if rules.convergence is not None and converged(rules.convergence, accuracies):
        return state, StageEnd("held-out accuracy has converged")
    return state, None


def after_step(
    rules: StoppingRules, state: DivergenceState, loss: float, entropy: float | None
) -> tuple[DivergenceState, StageEnd | None]:
    """Return the state after a step, and the stage's end if its loss or entropy has diverged."""
    if rules.divergence is None:
        return state, None
    state, diverged = watch_step(rules.divergence, state, loss, entropy)
    end = (
        StageEnd("the loss or the entropy diverged: restored the best checkpoint", True) if diverged else None
    )
    return state, end


def out_of_time(rules: StoppingRules, trained: float) -> StageEnd | None:
    """Return the stage's end where it has `trained` for as many seconds as the rules allow."""
    if rules.seconds is None or trained < rules.seconds:
        return None
    return StageEnd(f"{rules.seconds:.0f} seconds spent")
