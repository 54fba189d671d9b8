"""Puts finished samples into groups of equal answers, one sample at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field

from scorers.types import Answer, Group, Sample

__all__ = ["AsyncGrouper", "Grouper", "singleton_groups"]


@dataclass(slots=True)
class _OpenGroup:
    """A group that may still grow."""

    answer: Answer
    members: list[int] = field(default_factory=list)
    weight: float = 0.0


class _GroupList:
    """The groups so far. The two groupers share it, and differ only in how they compare answers.

    `groups` goes from heaviest to lightest; the earlier first member breaks a tie.
    """

    def __init__(self) -> None:
        self.groups: tuple[Group, ...] = ()
        self._groups: list[_OpenGroup] = []
        self._by_key: dict[Hashable, _OpenGroup] = {}

    def _join(self, group: _OpenGroup, sample: Sample, weight: float) -> None:
        group.members.append(sample.index)
        group.weight += weight
        ordered = sorted(self._groups, key=lambda group: -group.weight)
        self.groups = tuple(Group(group.answer, tuple(group.members), group.weight) for group in ordered)

    def _find_group(self, answer: Answer) -> Generator[Answer, bool | None, _OpenGroup]:
        """Find or open the answer's group; yield each group's first answer for a comparison.

        Only first answers are compared, because equality of answers is not transitive in practice.
        A key stays with its group, so it is compared only once. The list may grow during the walk,
        so two walks that overlap while they await a comparison can't open two groups for one answer.
        """
        position = 0
        while (group := self._by_key.get(answer.key)) is None and position < len(self._groups):
            candidate = self._groups[position]
            if (yield candidate.answer):
                return self._by_key.setdefault(answer.key, candidate)
            position += 1
        if group is None:
            group = self._by_key[answer.key] = _OpenGroup(answer)
            self._groups.append(group)
        return group


class Grouper(_GroupList):
    """Groups samples with a comparison that answers at once; without one, only equal keys are equal.

    `equivalent(first, new)` takes a group's first answer and the new one. None (undecided) counts
    as different.
    """

    def __init__(self, equivalent: Callable[[Answer, Answer], bool | None] | None = None) -> None:
        super().__init__()
        self._equivalent = equivalent

    def add(self, sample: Sample, answer: Answer | None, weight: float = 1.0) -> bool:
        """Add a finished sample to its group. Return False if it has no vote: no answer, or truncated."""
        if answer is None or sample.truncated:
            return False
        search = self._find_group(answer)
        try:
            first = next(search)
            while True:
                equal = self._equivalent(first, answer) if self._equivalent else None
                first = search.send(equal)
        except StopIteration as end:
            self._join(end.value, sample, weight)
        return True


class AsyncGrouper(_GroupList):
    """A `Grouper` that awaits its comparison; calls of `add` may overlap."""

    def __init__(self, equivalent: Callable[[Answer, Answer], Awaitable[bool | None]]) -> None:
        super().__init__()
        self._equivalent = equivalent

    async def add(self, sample: Sample, answer: Answer | None, weight: float = 1.0) -> bool:
        """Add a finished sample to its group. Return False if it has no vote: no answer, or truncated."""
        if answer is None or sample.truncated:
            return False
        search = self._find_group(answer)
        try:
            first = next(search)
            while True:
                first = search.send(await self._equivalent(first, answer))
        except StopIteration as end:
            self._join(end.value, sample, weight)
        return True


def singleton_groups(samples: Sequence[Sample]) -> tuple[Group, ...]:
    """Return every sample with text that was not truncated as a group of its own.

    These are the candidates among free text, where no two samples are equal. "best" and "mbr" can
    choose among them; every other vote would take the first.
    """
    return tuple(
        Group(Answer(sample.content, sample.index), (sample.index,), 1.0)
        for sample in samples
        if sample.content.strip() and not sample.truncated
    )
