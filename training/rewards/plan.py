"""The plan of a run's rewards: each problem's main reward, and shaping rewards by weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from training.rewards.context import RewardError
from training.types import Completion, Problem, Reward

__all__ = ["GroupRewards", "RewardPlan", "Shaping", "as_shaping"]

Shaping = Callable[[Problem, Sequence[Completion], Sequence[float | None]], Sequence[float | None]]
"""A reward that is added to the main one: (problem, completions, main rewards) -> rewards."""


@dataclass(frozen=True, slots=True)
class GroupRewards:
    """The rewards of all replies to one problem, one value for each reply in every sequence.

    `totals` are what to train on; None leaves the reply out. `main` is the problem's own reward, which gives
    the accuracy. `parts` maps each shaping reward's name to its values, without their weight.
    """

    totals: tuple[float | None, ...]
    main: tuple[float | None, ...]
    parts: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True, slots=True)
class RewardPlan:
    """Judges replies by `mains[problem.reward]`, plus the sum of weight * value over the `shaping` rewards.

    A shaping reward without a value for a reply adds nothing. Without a main value there is no total.
    `leave_out_unfinished` gives truncated replies no total either (DAPO's overlong filtering,
    arXiv:2503.14476); they are judged all the same, for the metrics. `training.rewards.reward_plan` makes a
    plan from names.
    """

    mains: Mapping[str, Reward]
    shaping: Mapping[str, tuple[float, Shaping]] = field(default_factory=dict)
    main_weight: float = 1.0
    leave_out_unfinished: bool = False

    def judge(self, problem: Problem, completions: Sequence[Completion]) -> GroupRewards:
        """Return the rewards of all replies. Raises RewardError where the plan lacks the problem's reward."""
        try:
            reward = self.mains[problem.reward]
        except KeyError:
            raise RewardError(f"problem {problem.id!r}: the run has no reward {problem.reward!r}") from None
        main = tuple(reward(problem, completions))
        parts = {name: tuple(shape(problem, completions, main)) for name, (_, shape) in self.shaping.items()}
        totals = tuple(
            self._total(index, completion, main, parts) for index, completion in enumerate(completions)
        )
        return GroupRewards(totals, main, parts)

    def _total(
        self,
        index: int,
        completion: Completion,
        main: Sequence[float | None],
        parts: Mapping[str, Sequence[float | None]],
    ) -> float | None:
        value = main[index]
        if value is None or (self.leave_out_unfinished and not completion.finished):
            return None
        added = ((self.shaping[name][0], values[index]) for name, values in parts.items())
        return self.main_weight * value + sum(weight * part for weight, part in added if part is not None)


def as_shaping(reward: Reward) -> Shaping:
    """Turn a reward into a shaping reward, which doesn't look at the main one."""

    def shape(
        problem: Problem, completions: Sequence[Completion], main: Sequence[float | None]
    ) -> Sequence[float | None]:
        return reward(problem, completions)

    return shape
