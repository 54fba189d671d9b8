"""Guards of a training run: divergence, convergence and reward hacking.

A guard is a pure function. It takes a rule, a state and an observation, and returns the next state and a
verdict. `training.trainer.saved_state` stores the states over a restart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

__all__ = [
    "Convergence",
    "Divergence",
    "DivergenceState",
    "RewardHacking",
    "converged",
    "detect_reward_hacking",
    "watch_accuracy",
    "watch_step",
]


@dataclass(frozen=True, slots=True)
class Divergence:
    """The rule by which a run has diverged. The stage then ends and restores the best checkpoint.

    A run has diverged in one of three cases:

    - held-out accuracy is `fall` below its best for `evaluations` in a row;
    - a loss is no number;
    - the entropy is under `entropy` nats a token for `steps` steps in a row.
    """

    fall: float = 0.1
    evaluations: int = 2
    entropy: float = 0.0
    steps: int = 20


@dataclass(frozen=True, slots=True)
class DivergenceState:
    """The divergence guard's memory.

    `best` is the best accuracy so far, at `best_step`. `below` counts the evaluations in a row that are below
    it by the rule's fall. `flat` counts the steps in a row whose entropy is under the rule's.
    """

    best: float | None = None
    best_step: int = 0
    below: int = 0
    flat: int = 0


def watch_accuracy(
    rule: Divergence, state: DivergenceState, accuracy: float, step: int
) -> tuple[DivergenceState, bool]:
    """Return the state after an evaluation, and whether the run has diverged.

    `accuracy` is held-out accuracy in [0, 1], never the reward, which may rise while accuracy falls.
    """
    if state.best is None or accuracy > state.best:
        return replace(state, best=accuracy, best_step=step, below=0), False
    # A fall of exactly `fall` counts, whichever way the difference was rounded.
    below = state.below + 1 if state.best - accuracy >= rule.fall - 1e-9 else 0
    return replace(state, below=below), below >= rule.evaluations


def watch_step(
    rule: Divergence, state: DivergenceState, loss: float, entropy: float | None = None
) -> tuple[DivergenceState, bool]:
    """Return the state after a step, and whether the run has diverged.

    `entropy` is the policy's mean in nats a token; None where it wasn't measured.
    """
    if not math.isfinite(loss) or (entropy is not None and not math.isfinite(entropy)):
        return state, True
    if entropy is None:
        return state, False
    flat = state.flat + 1 if entropy < rule.entropy else 0
    return replace(state, flat=flat), flat >= rule.steps


@dataclass(frozen=True, slots=True)
class Convergence:
    """The rule of early stopping: the last `window` evaluations show no real gain over the window before.

    A real gain of the mean accuracy is more than `gain`, and more than `z` standard errors of the difference
    of two proportions, each over `questions` * `window` answers. This takes the evaluations for independent.
    They ask the same questions, so the true error is smaller, and a small `z` makes up for it.
    """

    questions: int
    window: int = 4
    z: float = 1.0
    gain: float = 0.0


def converged(rule: Convergence, accuracies: Sequence[float]) -> bool:
    """Whether to stop, by the accuracies of all evaluations so far. Never before two whole windows."""
    if len(accuracies) < 2 * rule.window:
        return False
    before = fmean(accuracies[-2 * rule.window : -rule.window])
    after = fmean(accuracies[-rule.window :])
    variance = (before * (1 - before) + after * (1 - after)) / (rule.questions * rule.window)
    return after - before <= max(rule.gain, rule.z * math.sqrt(variance))


@dataclass(frozen=True, slots=True)
class RewardHacking:
    """The rule of reward hacking: the total rises by `rise` while accuracy falls by `fall`.

    It compares the means of the last `window` evaluations with those of the window before.
    """

    window: int = 3
    rise: float = 0.02
    fall: float = 0.02


def detect_reward_hacking(rule: RewardHacking, totals: Sequence[float], accuracies: Sequence[float]) -> bool:
    """Whether to raise the alarm. Both sequences hold one value for each evaluation so far, in order."""
    if min(len(totals), len(accuracies)) < 2 * rule.window:
        return False

    def gain(values: Sequence[float]) -> float:
        return fmean(values[-rule.window :]) - fmean(values[-2 * rule.window : -rule.window])

    return gain(totals) >= rule.rise and gain(accuracies) <= -rule.fall
