"""What is watched while training: accuracy apart from reward, collapse and convergence.

Every guard is a pure function from a rule, a state and what was seen to the next state and a verdict.
The states are kept over a restart by `training.trainer.saved_state`.
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
    "Hacking",
    "converged",
    "hacking",
    "watch_accuracy",
    "watch_step",
]


@dataclass(frozen=True, slots=True)
class Divergence:
    """When a run has gone wrong.

    Held-out accuracy `fall` below its best for `evaluations` in a row, a loss that is no number,
    or an entropy under `entropy` nats a token for `steps` steps in a row. Then the stage ends with the
    weights of its best evaluation.
    """

    fall: float = 0.1
    evaluations: int = 2
    entropy: float = 0.0
    steps: int = 20


@dataclass(frozen=True, slots=True)
class DivergenceState:
    """What the divergence guard remembers: the best accuracy, and how long it has been bad since."""

    best: float | None = None
    best_step: int = 0
    below: int = 0
    flat: int = 0


def watch_accuracy(
    rule: Divergence, state: DivergenceState, accuracy: float, step: int
) -> tuple[DivergenceState, bool]:
    """After an evaluation: what to remember, and whether the run has gone wrong.

    `accuracy` is held-out accuracy in [0, 1], never the reward, which may rise while this falls.
    """
    if state.best is None or accuracy > state.best:
        return replace(state, best=accuracy, best_step=step, below=0), False
    # A fall of exactly `fall` counts, whichever way the difference was rounded.
    below = state.below + 1 if state.best - accuracy >= rule.fall - 1e-9 else 0
    return replace(state, below=below), below >= rule.evaluations


def watch_step(
    rule: Divergence, state: DivergenceState, loss: float, entropy: float | None = None
) -> tuple[DivergenceState, bool]:
    """After a step: what to remember, and whether the run has gone wrong.

    `entropy` is the policy's mean in nats a token, where it was measured.
    """
    if not math.isfinite(loss) or (entropy is not None and not math.isfinite(entropy)):
        return state, True
    if entropy is None:
        return state, False
    flat = state.flat + 1 if entropy < rule.entropy else 0
    return replace(state, flat=flat), flat >= rule.steps


@dataclass(frozen=True, slots=True)
class Convergence:
    """When a run is done: the mean accuracy of the last `window` evaluations is no real gain on those before.

    A real gain is more than `gain` and more than `z` standard errors of the difference of two proportions,
    each over `questions` * `window` answers. That takes the evaluations for independent; they ask the same
    questions, so the true error is smaller, and a small `z` makes up for it.
    """

    questions: int
    window: int = 4
    z: float = 1.0
    gain: float = 0.0


def converged(rule: Convergence, accuracies: Sequence[float]) -> bool:
    """Whether to stop; `accuracies` are all evaluations' so far. Never before two whole windows."""
    if len(accuracies) < 2 * rule.window:
        return False
    before = fmean(accuracies[-2 * rule.window : -rule.window])
    after = fmean(accuracies[-rule.window :])
    variance = (before * (1 - before) + after * (1 - after)) / (rule.questions * rule.window)
    return after - before <= max(rule.gain, rule.z * math.sqrt(variance))


@dataclass(frozen=True, slots=True)
class Hacking:
    """When reward is hacked: the total has risen by `rise` while accuracy fell by `fall`.

    Compared are the means of the last `window` evaluations and of the `window` before.
    """

    window: int = 3
    rise: float = 0.02
    fall: float = 0.02


def hacking(rule: Hacking, totals: Sequence[float], accuracies: Sequence[float]) -> bool:
    """Whether to raise the alarm; both sequences hold one value for each evaluation so far, in order."""
    if min(len(totals), len(accuracies)) < 2 * rule.window:
        return False

    def gain(values: Sequence[float]) -> float:
        return fmean(values[-rule.window :]) - fmean(values[-2 * rule.window : -rule.window])

    return gain(totals) >= rule.rise and gain(accuracies) <= -rule.fall
