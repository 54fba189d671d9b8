"""Groups finished samples by equal answers, one sample at a time."""

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
    """Holds the groups of both groupers, which differ only in how they compare answers.

    `groups` is sorted from heaviest to lightest; in a tie, the group with the earlier first member leads.
    """

    def __init__(self) -> None:
        self.groups: tuple[Group, ...] = ()
        self._open_groups: list[_OpenGroup] = []
        self._group_by_key: dict[Hashable, _OpenGroup] = {}

    def _add_member(self, group: _OpenGroup, sample: Sample, weight: float) -> None:
        group.members.append(sample.index)
        group.weight += weight
        ordered = sorted(self._open_groups, key=lambda open_group: -open_group.weight)
        self.groups = tuple(
            Group(open_group.answer, tuple(open_group.members), open_group.weight) for open_group in ordered
        )

    def _find_group(self, answer: Answer) -> Generator[Answer, bool | None, _OpenGroup]:
        """Find or open the answer's group.

        Yields each group's first answer, and expects to be sent whether it equals this one; so the caller
        decides whether to await the comparison. Only first answers are compared, because equality of
        answers is not transitive in practice. Equal keys need no comparison.

        Searches may overlap while they await a comparison. Each looks again for its key after every one,
        and sees the groups that others have opened meanwhile. So no two open a group for the same answer.
        """
        position = 0
        while answer.key not in self._group_by_key and position < len(self._open_groups):
            candidate = self._open_groups[position]
            position += 1
            is_equal = yield candidate.answer
            if is_equal:
                self._group_by_key.setdefault(answer.key, candidate)
        if answer.key not in self._group_by_key:
            group = self._group_by_key[answer.key] = _OpenGroup(answer)
            self._open_groups.append(group)
        return self._group_by_key[answer.key]


class Grouper(_GroupList):
    """Groups samples by a synchronous comparison. Without one, only answers with the same key are equal.

    `equivalent(first, new)` compares a group's first answer with a new one. None means undecided, and
    counts as different.
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
            self._add_member(end.value, sample, weight)
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
            self._add_member(end.value, sample, weight)
        return True


def singleton_groups(samples: Sequence[Sample]) -> tuple[Group, ...]:
    """Return every sample with text that was not truncated as a group of its own.

    These are the candidates among free text, where no two samples are equal. "best" and "mbr" (minimum
    Bayes risk) can choose among them; every other vote would take the first.
    """
    return tuple(
        Group(Answer(sample.content, sample.index), (sample.index,), 1.0)
        for sample in samples
        if sample.content.strip() and not sample.truncated
    )
