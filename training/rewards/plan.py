"""A run's rewards: each row's own main reward, shaping rewards by weight, and every part kept for the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from training.rewards.context import RewardError
from training.types import Completion, Problem, Reward

__all__ = ["Judged", "RewardPlan", "Shaping", "shaped"]

Shaping = Callable[[Problem, Sequence[Completion], Sequence[float | None]], Sequence[float | None]]
"""A reward that is added to the main one, and may look at what that gave: (row, completions, main)."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a row's replies are worth, one value for each in all sequences.

    `totals` is what to train on; None: leave the reply out. `main` is the row's own reward,
    which accuracy is watched by, `parts` each shaping reward by its name, unweighted.
    """

    totals: tuple[float | None, ...]
    main: tuple[float | None, ...]
    parts: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True, slots=True)
class RewardPlan:
    """Judges replies by `mains[row.reward]`, plus the sum of weight * value over the `shaping` rewards.

    A shaping reward without a value for a reply adds nothing. Without a main value
    there is no total. `leave_out_unfinished` gives replies that were cut off no total either (DAPO's
    overlong filtering, arXiv:2503.14476); they are judged all the same, for the figures.
    `training.rewards.reward_plan` makes one by names.
    """

    mains: Mapping[str, Reward]
    shaping: Mapping[str, tuple[float, Shaping]] = field(default_factory=dict)
    main_weight: float = 1.0
    leave_out_unfinished: bool = False

    def judge(self, row: Problem, completions: Sequence[Completion]) -> Judged:
        """All replies to one row. Raises RewardError where the row's reward isn't one of the plan's."""
        try:
            reward = self.mains[row.reward]
        except KeyError:
            raise RewardError(f"row {row.id!r}: the run has no reward {row.reward!r}") from None
        main = tuple(reward(row, completions))
        parts = {name: tuple(shape(row, completions, main)) for name, (_, shape) in self.shaping.items()}
        totals = tuple(self._total(place, each, main, parts) for place, each in enumerate(completions))
        return Judged(totals, main, parts)

    def _total(
        self,
        place: int,
        completion: Completion,
        main: Sequence[float | None],
        parts: Mapping[str, Sequence[float | None]],
    ) -> float | None:
        value = main[place]
        if value is None or (self.leave_out_unfinished and not completion.finished):
            return None
        added = ((self.shaping[name][0], values[place]) for name, values in parts.items())
        return self.main_weight * value + sum(weight * part for weight, part in added if part is not None)


def shaped(reward: Reward) -> Shaping:
    """A reward that doesn't look at the main one, as a shaping reward."""

    def shape(
        row: Problem, completions: Sequence[Completion], main: Sequence[float | None]
    ) -> Sequence[float | None]:
        return reward(row, completions)

    return shape
