"""One sample's thinking against its limit."""

from __future__ import annotations

from enum import Enum

__all__ = ["Decision", "Limiter", "share_tokens"]


class Decision(Enum):
    """What to do with a sample that is thinking."""

    CONTINUE = "continue"
    CUT = "cut"
    """The limit is reached: close the block and have the answer written."""
    WAIT = "wait"
    """The model wants to stop too early: have it think on (s1's "Wait")."""


_CONTINUE, _CUT, _WAIT = Decision  # looking a member up costs more than all else that a chunk is judged by


class Limiter:
    """Counts thinking tokens. `limit` None: no limit; `waits`: how often an early end is put off.

    A chunk is counted before it is judged, so the limit is passed by one chunk at most.
    `slack` is how many tokens more an engine that keeps the limit itself is left, so that
    it can write its end tag.
    """

    __slots__ = ("_slack", "limit", "used", "waits")

    def __init__(self, limit: int | None, waits: int = 0, *, slack: int = 0) -> None:
        self.limit = limit
        self.waits = waits
        self.used = 0
        self._slack = slack

    def feed(self, tokens: int, thinking: bool) -> Decision:
        """Adds a chunk's thinking tokens; `thinking` says that the block is still open after it."""
        self.used += tokens
        if thinking and self.limit is not None and self.used >= self.limit + self._slack:
            return _CUT
        return _CONTINUE

    def close(self) -> Decision:
        """The block has ended: let it (CONTINUE), or have the model think on (WAIT).

        Next to the limit it may have been the engine that ended it: that is no early end.
        """
        if self.waits > 0 and (self.limit is None or self.used + 2 * self._slack < self.limit):
            self.waits -= 1
            return _WAIT
        return _CONTINUE


def share_tokens(limit: int, reserve: int, total: int | None) -> tuple[int, int]:
    """Splits a reply's tokens into (thinking limit, total limit).

    `reserve` is what the answer needs, `total` the client's own cap on both together (None:
    none given). The answer's reserve comes first, but never takes more than half of a small
    total, so that neither side is left with nothing.
    """
    if total is None:
        return limit, limit + reserve
    kept = min(reserve, max(total // 2, 1))
    return min(limit, max(total - kept, 0)), total
