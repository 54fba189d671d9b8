"""Grouping finished samples by equal answers."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.grouping import AsyncGrouper, Grouper
from scorers.types import Answer, Sample


def answer(text: str) -> Answer:
    """Return an answer that is its own key."""
    return Answer(text, text)


def near(first: Answer, new: Answer) -> bool:
    """Return whether two numbers differ by at most 1, which is not transitive."""
    return abs(int(first.raw) - int(new.raw)) <= 1


def members(grouper: Grouper | AsyncGrouper) -> list[tuple[int, ...]]:
    """Return the members of each group, heaviest first."""
    return [group.members for group in grouper.groups]


def add_all(grouper: Grouper, texts: Sequence[str]) -> None:
    """Add one sample for each text, in order."""
    for index, text in enumerate(texts):
        grouper.add(Sample(index, text), answer(text))


def test_equal_keys_are_one_group() -> None:
    """Samples whose answers have equal keys join without a comparison."""
    grouper = Grouper()
    add_all(grouper, ["7", "8", "7"])
    assert members(grouper) == [(0, 2), (1,)]


def test_heaviest_first_then_earliest() -> None:
    """Groups run from heaviest to lightest; the earlier first member breaks a tie."""
    grouper = Grouper()
    add_all(grouper, ["a", "b", "b", "c"])
    assert members(grouper) == [(1, 2), (0,), (3,)]


def test_weights_add_up() -> None:
    """A group weighs the sum of its samples' weights, whatever their number."""
    grouper = Grouper()
    for index, (text, weight) in enumerate([("a", 0.2), ("a", 0.3), ("b", 0.9)]):
        grouper.add(Sample(index, text), answer(text), weight)
    assert [(group.answer.raw, group.weight) for group in grouper.groups] == [("b", 0.9), ("a", 0.5)]


def test_only_the_first_member_is_compared() -> None:
    """3 does not join [1, 2] through 2, because it is not near 1."""
    grouper = Grouper(near)
    add_all(grouper, ["1", "2", "3"])
    assert members(grouper) == [(0, 1), (2,)]


def test_a_known_key_is_not_compared_again() -> None:
    """The second 2 and the second 9 find their groups by their keys alone."""
    comparisons = []

    def spy(first: Answer, new: Answer) -> bool:
        comparisons.append((first.raw, new.raw))
        return near(first, new)

    grouper = Grouper(spy)
    add_all(grouper, ["1", "2", "2", "9", "9"])
    assert comparisons == [("1", "2"), ("1", "9")]
    assert members(grouper) == [(0, 1, 2), (3, 4)]


def test_undecided_is_different() -> None:
    """Answers whose equality is undecided stay apart."""
    grouper = Grouper(lambda first, new: None)
    add_all(grouper, ["1", "1.0"])
    assert members(grouper) == [(0,), (1,)]


def test_no_answer_and_truncated_never_vote() -> None:
    """A sample without an answer, or cut by a token limit, joins no group and opens none."""
    grouper = Grouper()
    assert not grouper.add(Sample(0, "hm"), None)
    assert not grouper.add(Sample(1, "7", finish_reason="length"), answer("7"))
    assert grouper.add(Sample(2, "7"), answer("7"))
    assert members(grouper) == [(2,)]


async def test_overlapping_additions_share_a_group() -> None:
    """Two samples added at the same time do not open two groups for one answer."""

    async def equivalent(first: Answer, new: Answer) -> bool:
        await asyncio.sleep(0)
        return near(first, new)

    grouper = AsyncGrouper(equivalent)
    await asyncio.gather(
        *(grouper.add(Sample(i, text), answer(text)) for i, text in enumerate(["5", "9", "1", "2", "1", "2"]))
    )
    assert sorted(map(sorted, members(grouper))) == [[0], [1], [2, 3, 4, 5]]


@settings(deadline=None)
@given(st.lists(st.integers(0, 9).map(str)))
def test_awaiting_changes_nothing(texts: list[str]) -> None:
    """Awaited one after another, comparisons give the same groups as instant ones."""

    async def equivalent(first: Answer, new: Answer) -> bool:
        return near(first, new)

    async def awaited() -> list[tuple[int, ...]]:
        grouper = AsyncGrouper(equivalent)
        for index, text in enumerate(texts):
            await grouper.add(Sample(index, text), answer(text))
        return members(grouper)

    grouper = Grouper(near)
    add_all(grouper, texts)
    assert asyncio.run(awaited()) == members(grouper)
