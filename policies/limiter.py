"""The thinking of one sample against its limit."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Limiter", "share_tokens"]


@dataclass(slots=True)
class Limiter:
    """The thinking limit of one sample, in tokens.

    Add each chunk's thinking tokens to `used` before you ask; so a sample passes its limit by one chunk at
    most. `waits` is how often an early end of thinking is put off. `slack` is how many more tokens an engine
    has that enforces the limit itself, so that it can write its end tag.
    """

    limit: int
    waits: int = 0
    slack: int = field(default=0, kw_only=True)
    used: int = field(default=0, kw_only=True)

    def must_cut(self) -> bool:
        """Tell whether a block that is still open has to be closed, so that the answer is written."""
        return self.used >= self.limit + self.slack

    def must_wait(self) -> bool:
        """Tell whether to put off the end of a block (s1's "Wait"), and count that as one of the `waits`.

        Near the limit the engine may have ended the block: that is no early end.
        """
        if self.waits > 0 and self.used + 2 * self.slack < self.limit:
            self.waits -= 1
            return True
        return False


def share_tokens(limit: int, reserve: int, total: int | None) -> int:
    """Return the thinking limit that leaves room for the answer.

    `reserve` is what the answer needs, `total` the client's own cap on both together (None: no cap). The
    answer's reserve comes first. But it never takes more than half of a small total, so that each side has
    some.
    """
    if total is None:
        return limit
    answer = min(reserve, max(total // 2, 1))
    return min(limit, max(total - answer, 0))
