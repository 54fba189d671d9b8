"""Length rewards: punish what runs into the limit, prefer the short among the right, keep to the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policies.prompts import LEVELS, Level, thinking_limit
from training.types import Completion, Problem

__all__ = ["KimiLength", "Obedience", "SoftOverlong", "kimi_length", "over_budget", "soft_overlong"]


def soft_overlong(length: int, limit: int, cache: int) -> float:
    """DAPO's soft overlong punishment (arXiv:2503.14476, eq. 13), in [-1, 0]; all in tokens.

    Nothing up to `limit - cache`, from there in proportion down to -1 at the limit.
    """
    if length <= limit - cache:
        return 0.0
    return -1.0 if length >= limit else (limit - cache - length) / cache


def kimi_length(lengths: Sequence[int], right: Sequence[bool]) -> list[float]:
    """Kimi k1.5's length reward (arXiv:2501.12599, section 2.3.3) of one question's replies.

    From 0.5 for the shortest down to -0.5 for the longest of the group; a wrong reply
    never gains by being short. All are 0.0 where all are equally long.
    """
    if not lengths:
        return []
    shortest, longest = min(lengths), max(lengths)
    if shortest == longest:
        return [0.0] * len(lengths)
    preferred = [0.5 - (length - shortest) / (longest - shortest) for length in lengths]
    return [value if ok else min(0.0, value) for value, ok in zip(preferred, right, strict=True)]


def over_budget(thought: int, limit: int, slack: float) -> float:
    """How far a thinking budget was passed, in [-1, 0]: 0 within it, -1 from `slack` * limit above it on.

    The one-sided limit of L1's LCPO-Max (arXiv:2503.04697), as a sum's part instead of a factor,
    and without its pull towards the limit from below: a budget is a most, not an aim.
    """
    if thought <= limit:
        return 0.0
    room = slack * limit
    return -1.0 if thought - limit >= room else -(thought - limit) / room


@dataclass(frozen=True, slots=True)
class SoftOverlong:
    """`soft_overlong` of each whole reply."""

    limit: int
    cache: int

    def __call__(
        self, row: Problem, completions: Sequence[Completion], main: Sequence[float | None]
    ) -> list[float | None]:
        """See `training.rewards.plan.Shaping`."""
        return [soft_overlong(len(each.ids), self.limit, self.cache) for each in completions]


@dataclass(frozen=True, slots=True)
class KimiLength:
    """`kimi_length` of the group; right is what the main reward gives more than 0.5, None where that is."""

    def __call__(
        self, row: Problem, completions: Sequence[Completion], main: Sequence[float | None]
    ) -> list[float | None]:
        """See `training.rewards.plan.Shaping`."""
        judged = [place for place, value in enumerate(main) if value is not None]
        lengths = [len(completions[place].ids) for place in judged]
        rewards = dict(zip(judged, kimi_length(lengths, [(main[p] or 0) > 0.5 for p in judged]), strict=True))
        return [rewards.get(place) for place in range(len(completions))]


@dataclass(frozen=True, slots=True)
class Obedience:
    """`over_budget` of each reply's thinking against its level's limit.

    None for a reply without a budget, and for a level without a limit.
    """

    levels: Mapping[str, Level] = field(default_factory=lambda: LEVELS)
    context: int | None = None
    slack: float = 0.25

    def __call__(
        self, row: Problem, completions: Sequence[Completion], main: Sequence[float | None]
    ) -> list[float | None]:
        """See `training.rewards.plan.Shaping`."""
        return [self._one(each) for each in completions]

    def _one(self, completion: Completion) -> float | None:
        level = None if completion.budget is None else self.levels.get(completion.budget)
        limit = None if level is None else thinking_limit(level, self.context)
        return None if limit is None else over_budget(completion.thought, limit, self.slack)
