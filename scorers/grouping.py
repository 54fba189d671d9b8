"""Puts finished samples into classes of equal answers, one at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field

from scorers.types import Answer, Group, Sample

__all__ = ["AsyncGrouper", "Grouper", "singleton_groups"]


@dataclass(slots=True)
class _OpenGroup:
    answer: Answer
    members: list[int] = field(default_factory=list)
    weight: float = 0.0


class _GroupList:
    """The bookkeeping that both groupers share; they differ only in how they ask for equivalence."""

    def __init__(self) -> None:
        self._classes: list[_OpenGroup] = []
        self._by_key: dict[Hashable, _OpenGroup] = {}

    @property
    def groups(self) -> tuple[Group, ...]:
        """The classes from heaviest to lightest, ties by the earlier first member."""
        ordered = sorted(self._classes, key=lambda each: -each.weight)
        return tuple(Group(each.answer, tuple(each.members), each.weight) for each in ordered)

    def _place(self, answer: Answer) -> Generator[Answer, bool | None, _OpenGroup]:
        """Find or open the answer's class, yielding each first member to be compared with it.

        Only first members are compared, because equality of answers is not transitive in
        practice. A key once placed stays with its class, so it is compared only once. The
        walk is over a list that may grow meanwhile, so two placements that overlap while
        they wait for a comparison still can't open two classes for one answer.
        """
        position = 0
        while (known := self._by_key.get(answer.key)) is None and position < len(self._classes):
            candidate = self._classes[position]
            if (yield candidate.answer):
                return self._by_key.setdefault(answer.key, candidate)
            position += 1
        if known is None:
            known = self._by_key[answer.key] = _OpenGroup(answer)
            self._classes.append(known)
        return known

    @staticmethod
    def _join(joined: _OpenGroup, sample: Sample, weight: float) -> None:
        joined.members.append(sample.index)
        joined.weight += weight


class Grouper(_GroupList):
    """Groups with a comparison that answers at once; without one, only equal keys are equal.

    `equivalent(first, new)` gets a class's first answer and the new one; None (could not
    be decided) counts as different.
    """

    def __init__(self, equivalent: Callable[[Answer, Answer], bool | None] | None = None) -> None:
        super().__init__()
        self._equivalent = equivalent

    def add(self, sample: Sample, answer: Answer | None, weight: float = 1.0) -> bool:
        """Let a finished sample join its class; False where it has no vote (no answer, or truncated)."""
        if answer is None or sample.truncated:
            return False
        placing = self._place(answer)
        try:
            first = next(placing)
            while True:
                same = self._equivalent(first, answer) if self._equivalent else None
                first = placing.send(same)
        except StopIteration as placed:
            self._join(placed.value, sample, weight)
        return True


class AsyncGrouper(_GroupList):
    """`Grouper` with a comparison that is awaited; calls of `add` may overlap."""

    def __init__(self, equivalent: Callable[[Answer, Answer], Awaitable[bool | None]]) -> None:
        super().__init__()
        self._equivalent = equivalent

    async def add(self, sample: Sample, answer: Answer | None, weight: float = 1.0) -> bool:
        """Let a finished sample join its class; False where it has no vote (no answer, or truncated)."""
        if answer is None or sample.truncated:
            return False
        placing = self._place(answer)
        try:
            first = next(placing)
            while True:
                first = placing.send(await self._equivalent(first, answer))
        except StopIteration as placed:
            self._join(placed.value, sample, weight)
        return True


def singleton_groups(samples: Sequence[Sample]) -> tuple[Group, ...]:
    """Every sample that has text and was not truncated, as a class of its own.

    These are the candidates among free text, where no two samples are equal: "best" and
    "mbr" can choose among them, every other vote would take the first.
    """
    return tuple(
        Group(Answer(sample.content, sample.index), (sample.index,), 1.0)
        for sample in samples
        if sample.content.strip() and not sample.truncated
    )
