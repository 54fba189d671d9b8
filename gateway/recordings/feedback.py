"""Remembers who asked for which recorded answer, so that feedback can name it."""

from __future__ import annotations

from collections import deque

from gateway.recordings.lines import Provenance

__all__ = ["RecentAnswers"]


class RecentAnswers:
    """The ids of the last `limit` recorded answers, each known to its owner alone.

    50,000 of them take some 10 MB.
    """

    def __init__(self, limit: int = 50_000) -> None:
        self._limit = limit
        self._completions: dict[tuple[str, str], str] = {}  # owner and either id -> the completion's id
        self._order: deque[Provenance] = deque()

    def add(self, provenance: Provenance) -> None:
        """Remember an answer and forget the oldest beyond the limit; a repeated id means the latest."""
        self._order.append(provenance)
        for name in self._names(provenance):
            self._completions[name] = provenance.completion_id
        while len(self._order) > self._limit:
            oldest = self._order.popleft()
            for name in self._names(oldest):
                if self._completions.get(name) == oldest.completion_id:
                    del self._completions[name]

    def find(self, any_id: str, owner: str = "") -> str | None:
        """Return the completion's id of the owner's answer; None if it is not among the remembered."""
        return self._completions.get((owner, any_id))

    @staticmethod
    def _names(provenance: Provenance) -> list[tuple[str, str]]:
        ids = (provenance.completion_id, provenance.request_id)
        return [(provenance.owner, any_id) for any_id in ids if any_id]
