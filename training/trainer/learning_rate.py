"""The learning-rate schedule of a stage that the clock ends: it decays with time instead of steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from torch.optim.lr_scheduler import LambdaLR

from training.trainer.transformers_compat import set_scheduler

__all__ = ["TimedSchedule", "schedule_factor"]


def schedule_factor(decay: Literal["linear", "cosine"], warmup: int, step: int, time_share: float) -> float:
    """Return the factor of the learning rate after `step` steps and that share of the stage's time.

    It rises over `warmup` steps. Both kinds of decay, "linear" and "cosine", reach 0 at the end of the time.
    """
    rise = min(1.0, step / warmup) if warmup else 1.0
    time_left = max(0.0, 1.0 - time_share)
    return rise * (time_left if decay == "linear" else (1 - math.cos(math.pi * time_left)) / 2)


class TimedSchedule:
    """A mixin for trainers of transformers: before training, `use_clock` may set how time is measured.

    Without a clock the rate decays over the steps, as in transformers. With one it follows whichever of time
    and steps is nearer its end.
    """

    _time_share: Callable[[], float] | None = None

    def use_clock(self, time_share: Callable[[], float] | None) -> None:
        """Set what returns the share of the stage's time that has passed. None: no clock ends the stage."""
        self._time_share = time_share

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Create the schedule; see transformers' Trainer."""
        time_share, trainer = self._time_share, self  # type: Any, Any
        if time_share is None or trainer.args.lr_scheduler_type == "constant":
            return super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]
        decay = trainer.args.lr_scheduler_type.value
        warmup = trainer.args.get_warmup_steps(num_training_steps)

        def factor(step: int) -> float:
            return schedule_factor(decay, warmup, step, max(time_share(), step / num_training_steps))

        return set_scheduler(trainer, LambdaLR(optimizer or trainer.optimizer, factor))
