"""The rate of learning of a stage that the clock ends: it falls with the time, not with the steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from torch.optim.lr_scheduler import LambdaLR

__all__ = ["TimedSchedule", "schedule_factor"]


def schedule_factor(decay: Literal["linear", "cosine"], warmup: int, step: int, spent: float) -> float:
    """The part of the rate that a step gets, after so many steps and that share of the stage's time.

    It rises over `warmup` steps; both ways of falling, "linear" and "cosine", come to 0 with the time.
    """
    rising = min(1.0, step / warmup) if warmup else 1.0
    left = max(0.0, 1.0 - spent)
    return rising * (left if decay == "linear" else (1 - math.cos(math.pi * left)) / 2)


class TimedSchedule:
    """For a trainer of transformers: before it trains, `by_clock` may say how to tell the time spent.

    Without, the rate falls over the steps, as theirs does; with both it falls with what is nearer its end.
    """

    _spent: Callable[[], float] | None = None

    def by_clock(self, spent: Callable[[], float] | None) -> None:
        """`spent` gives the share of the stage's time that has gone by; None: no clock ends it."""
        self._spent = spent

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """See transformers' Trainer."""
        spent, this = self._spent, self  # type: Any, Any
        if spent is None or this.args.lr_scheduler_type == "constant":
            return super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]
        decay, warmup = this.args.lr_scheduler_type.value, this.args.get_warmup_steps(num_training_steps)

        def share(step: int) -> float:
            return schedule_factor(decay, warmup, step, max(spent(), step / num_training_steps))

        this.lr_scheduler = LambdaLR(optimizer or this.optimizer, share)
        this._created_lr_scheduler = True
        return this.lr_scheduler
