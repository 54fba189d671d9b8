"""The thinking of one sample against its limit."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Decision", "Limiter", "share_tokens"]


class Decision(Enum):
    """What to do with a sample that thinks."""

    CONTINUE = "continue"
    CUT = "cut"
    """The limit is reached: close the block and ask for the answer."""
    WAIT = "wait"
    """The model wants to stop too early: let it continue to think (s1's "Wait")."""


_CONTINUE, _CUT, _WAIT = Decision  # looking a member up costs more than the rest of the decision


@dataclass(slots=True)
class Limiter:
    """Counts the thinking tokens of one sample against its limit (None: no limit).

    `waits` is how often the limiter puts off an early end. A chunk is counted before it is judged, so a
    sample passes its limit by one chunk at most. `slack` is how many more tokens an engine has that enforces
    the limit itself, so that it can write its end tag. `used` counts the tokens so far.
    """

    limit: int | None
    waits: int = 0
    slack: int = field(default=0, kw_only=True)
    used: int = field(default=0, kw_only=True)

    def feed(self, tokens: int, thinking: bool) -> Decision:
        """Add a chunk's thinking tokens; `thinking`: the block is still open after the chunk."""
        self.used += tokens
        if thinking and self.limit is not None and self.used >= self.limit + self.slack:
            return _CUT
        return _CONTINUE

    def close(self) -> Decision:
        """Decide whether the end of a block stands (CONTINUE), or the model thinks further (WAIT).

        Near the limit the engine may have ended the block: that is no early end.
        """
        if self.waits > 0 and (self.limit is None or self.used + 2 * self.slack < self.limit):
            self.waits -= 1
            return _WAIT
        return _CONTINUE


def share_tokens(limit: int, reserve: int, total: int | None) -> tuple[int, int]:
    """Split a reply's tokens into (thinking limit, total limit).

    `reserve` is what the answer needs, `total` the client's own cap on both together (None: no cap). The
    answer's reserve comes first. But it never takes more than half of a small total, so that each side has
    some.
    """
    if total is None:
        return limit, limit + reserve
    answer = min(reserve, max(total // 2, 1))
    return min(limit, max(total - answer, 0)), total
