"""Rows in the order in which a run sees them: streams mixed in fixed parts, each shuffled anew every epoch.

The order is a function of the seed and the position alone, so a run that is resumed at a
position sees exactly what it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from training.types import Problem

__all__ = ["Drawn", "Mix", "beside", "ordered"]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A row, and how often its stream had been gone through before."""

    row: Problem
    epoch: int


@dataclass(frozen=True)
class Mix:
    """An endless sequence of rows: in every `sum(parts)` of them each stream has its part, in random places.

    The seed's recipe is three parts of reasoning to one of general rows. Streams without rows
    must have no part. Raises ValueError.
    """

    streams: Sequence[Sequence[Problem]]
    parts: Sequence[int] = (3, 1)
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.streams) != len(self.parts) or min(self.parts) < 0 or not sum(self.parts):
            raise ValueError("a mix needs a part of 0 or more for each stream, and one above 0")
        if any(part and not stream for stream, part in zip(self.streams, self.parts, strict=True)):
            raise ValueError("a stream without rows can't have a part in a mix")

    def __getitem__(self, position: int) -> Drawn:
        """The row at a position from 0 on; there is no last one."""
        if position < 0:
            raise IndexError("a mix has no end to count from")
        block, place = divmod(position, sum(self.parts))
        order = _block(tuple(self.parts), self.seed, block)
        stream = order[place]
        drawn = block * self.parts[stream] + order[:place].count(stream)
        epoch, within = divmod(drawn, len(self.streams[stream]))
        shuffled = _epoch(len(self.streams[stream]), self.seed, stream, epoch)
        return Drawn(self.streams[stream][shuffled[within]], epoch)

    def take(self, position: int, count: int) -> list[Drawn]:
        """The `count` rows from a position on."""
        return [self[place] for place in range(position, position + count)]


def beside(count: int, share: float) -> int:
    """How many general rows make up `share` of all, beside `count` others; 0 for a share of 1."""
    return round(count * share / (1 - share)) if share < 1 else 0


def ordered(rows: Sequence[Problem], count: int, general: float, seed: int) -> list[Problem]:
    """`count` rows in the order in which a stage asks them, over as many epochs as that takes.

    Where there are general rows and others, `general` of each hundred are general.
    """
    others = [row for row in rows if not row.general]
    kept = [row for row in rows if row.general]
    part = round(100 * general) if kept and others else 0
    mix = Mix((others, kept), (100 - part, part), seed) if part else Mix((rows,), (1,), seed)
    return [drawn.row for drawn in mix.take(0, count)]


@lru_cache(maxsize=64)
def _block(parts: tuple[int, ...], seed: int, block: int) -> tuple[int, ...]:
    """Which stream each place of a block comes from."""
    order = [stream for stream, part in enumerate(parts) for _ in range(part)]
    random.Random(f"{seed}/block/{block}").shuffle(order)
    return tuple(order)


@lru_cache(maxsize=16)
def _epoch(size: int, seed: int, stream: int, epoch: int) -> tuple[int, ...]:
    """The order of a stream's rows in one epoch."""
    order = list(range(size))
    random.Random(f"{seed}/{stream}/{epoch}").shuffle(order)
    return tuple(order)
