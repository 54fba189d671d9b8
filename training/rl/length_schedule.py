"""The progressive length limit: replies may grow when the model has learnt to finish within it.

Magistral (arXiv:2506.10910) raises the limit in steps as training goes on; here the share of
replies that were cut off decides when.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

__all__ = ["LengthSchedule", "LengthState", "next_length", "start_length"]


@dataclass(frozen=True, slots=True)
class LengthSchedule:
    """From `start` to `most` tokens of a whole reply, times `factor` each time that few were cut off.

    Few is a mean share of at most `clipped` over the last `window` steps at this limit. A fixed limit is
    `start` = `most`. Raises ValueError for numbers that make no schedule.
    """

    start: int
    most: int
    factor: float = 1.5
    clipped: float = 0.05
    window: int = 10

    def __post_init__(self) -> None:
        if not (0 < self.start <= self.most and self.factor > 1 and self.window > 0):
            raise ValueError("a length schedule needs 0 < start <= most, factor > 1 and window > 0")


@dataclass(frozen=True, slots=True)
class LengthState:
    """The limit now, in tokens, and the shares cut off in the last steps at it."""

    limit: int
    shares: tuple[float, ...] = ()


def start_length(schedule: LengthSchedule) -> LengthState:
    """The state before the first step."""
    return LengthState(schedule.start)


def next_length(schedule: LengthSchedule, state: LengthState, finished: Sequence[bool]) -> LengthState:
    """The state after a step in which these replies were drawn at `state.limit`; without any, the same."""
    if not finished:
        return state
    shares = (*state.shares, 1 - sum(finished) / len(finished))[-schedule.window :]
    if len(shares) < schedule.window or fmean(shares) > schedule.clipped or state.limit >= schedule.most:
        return LengthState(state.limit, shares)
    return LengthState(min(schedule.most, math.ceil(state.limit * schedule.factor)))
