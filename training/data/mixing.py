"""The data mixture: problems in the order in which a run sees them.

Streams are mixed in fixed parts, and each is shuffled again in every epoch. The order is a function of the
seed and the position alone, so a run that resumes at a position sees exactly what it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from training.types import Problem

__all__ = ["Mixture", "MixtureItem", "general_count", "problem_order"]


@dataclass(frozen=True, slots=True)
class MixtureItem:
    """A problem of a mixture, and the epoch of its stream, from 0."""

    problem: Problem
    epoch: int


@dataclass(frozen=True)
class Mixture:
    """An endless sequence of problems: in every `sum(parts)` of them each stream has its part, shuffled.

    The default recipe is three parts of reasoning to one of general problems. Raises ValueError for parts
    that make no mixture, and for an empty stream with a part.
    """

    streams: Sequence[Sequence[Problem]]
    parts: Sequence[int] = (3, 1)
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.streams) != len(self.parts) or min(self.parts) < 0 or not sum(self.parts):
            raise ValueError("a mixture needs a part of 0 or more for each stream, and one above 0")
        if any(part and not stream for stream, part in zip(self.streams, self.parts, strict=True)):
            raise ValueError("an empty stream can't have a part in a mixture")

    def __getitem__(self, position: int) -> MixtureItem:
        """Return the problem at a position from 0 on; there is no last one."""
        if position < 0:
            raise IndexError("a mixture has no end to count from")
        block, slot = divmod(position, sum(self.parts))
        order = _block(tuple(self.parts), self.seed, block)
        stream = order[slot]
        index = block * self.parts[stream] + order[:slot].count(stream)
        epoch, within = divmod(index, len(self.streams[stream]))
        shuffled = _epoch(len(self.streams[stream]), self.seed, stream, epoch)
        return MixtureItem(self.streams[stream][shuffled[within]], epoch)

    def items(self, start: int, count: int) -> list[MixtureItem]:
        """Return `count` items from a position on."""
        return [self[position] for position in range(start, start + count)]


def general_count(count: int, share: float) -> int:
    """Return how many general problems to add to `count` others for a `share` of all; 0 for a share of 1."""
    return round(count * share / (1 - share)) if share < 1 else 0


def problem_order(problems: Sequence[Problem], count: int, general: float, seed: int) -> list[Problem]:
    """Return `count` problems in the order in which a stage asks them, over as many epochs as that takes.

    Where there are general problems and others, a share of `general` is general, in whole percent.
    """
    reasoning_problems = [problem for problem in problems if not problem.general]
    general_problems = [problem for problem in problems if problem.general]
    part = round(100 * general) if general_problems and reasoning_problems else 0
    if part:
        mixture = Mixture((reasoning_problems, general_problems), (100 - part, part), seed)
    else:
        mixture = Mixture((problems,), (1,), seed)
    return [item.problem for item in mixture.items(0, count)]


@lru_cache(maxsize=64)
def _block(parts: tuple[int, ...], seed: int, block: int) -> tuple[int, ...]:
    """Return the stream of each slot in a block."""
    order = [stream for stream, part in enumerate(parts) for _ in range(part)]
    random.Random(f"{seed}/block/{block}").shuffle(order)
    return tuple(order)


@lru_cache(maxsize=16)
def _epoch(size: int, seed: int, stream: int, epoch: int) -> tuple[int, ...]:
    """Return the order of a stream's problems in one epoch."""
    order = list(range(size))
    random.Random(f"{seed}/{stream}/{epoch}").shuffle(order)
    return tuple(order)
