"""The length schedule: replies may grow when the model has learnt to finish within the limit.

Magistral (arXiv:2506.10910) raises the limit in steps as training goes on. Here the share of truncated
replies decides when.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

__all__ = ["LengthSchedule", "LengthState", "next_length", "start_length"]


@dataclass(frozen=True, slots=True)
class LengthSchedule:
    """A limit on the tokens of a whole reply that grows from `start` to `maximum` by a `factor`.

    It grows where the mean share of truncated replies is at most `max_truncated` over the last `window` steps
    at this limit. For a fixed limit, `start` is `maximum`. Raises ValueError for other impossible numbers.
    """

    start: int
    maximum: int
    factor: float = 1.5
    max_truncated: float = 0.05
    window: int = 10

    def __post_init__(self) -> None:
        if not (0 < self.start <= self.maximum and self.factor > 1 and self.window > 0):
            raise ValueError("a length schedule needs 0 < start <= maximum, factor > 1 and window > 0")


@dataclass(frozen=True, slots=True)
class LengthState:
    """The current limit, in tokens, and the shares of truncated replies in the last steps at it."""

    limit: int
    shares: tuple[float, ...] = ()


def start_length(schedule: LengthSchedule) -> LengthState:
    """Return the state before the first step."""
    return LengthState(schedule.start)


def next_length(schedule: LengthSchedule, state: LengthState, finished: Sequence[bool]) -> LengthState:
    """Return the state after a step. `finished` says of each reply whether it ended within `state.limit`.

    Without replies the state stays the same.
    """
    if not finished:
        return state
    shares = (*state.shares, 1 - sum(finished) / len(finished))[-schedule.window :]
    if (
        len(shares) < schedule.window
        or fmean(shares) > schedule.max_truncated
        or state.limit >= schedule.maximum
    ):
        return LengthState(state.limit, shares)
    return LengthState(min(schedule.maximum, math.ceil(state.limit * schedule.factor)))
