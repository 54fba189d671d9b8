"""Filters for questions that are worth training on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.rl.advantages import advantages
from training.rl.filters import MAX_ROUNDS, informative, next_batch, pass_rate, split_by_difficulty

values = st.lists(st.none() | st.sampled_from([0.0, 0.083, 0.5, 1.0]), max_size=10)


def test_the_band_holds_its_ends() -> None:
    """Rates of 20% and 80% are within it, rarer and more frequent successes are not; part credit is none."""
    rewards = {
        "never": [0.0] * 10,
        "some": [1.0, 0.0, 0.0, 0.0, 0.0],
        "most": [1.0, 1.0, 1.0, 1.0, 0.0],
        "always": [1.0] * 10,
        "nearly": [1.0] * 9 + [0.0],
        "parts": [0.9] * 5,
        "unjudged": [None, None],
    }
    split = split_by_difficulty(rewards)
    assert split.within == ("some", "most")
    assert split.easy == ("always", "nearly")
    assert split.hard == ("never", "parts")
    assert split.unknown == ("unjudged",)


@given(st.dictionaries(st.text(max_size=3), values), st.floats(0, 0.5), st.floats(0.5, 1))
def test_every_question_is_in_one_part(
    rewards: dict[str, list[float | None]], low: float, high: float
) -> None:
    """No question is lost or doubled, and the band holds the rates within it."""
    split = split_by_difficulty(rewards, low, high)
    assert sorted((*split.within, *split.easy, *split.hard, *split.unknown)) == sorted(rewards)
    assert all(low <= (pass_rate(rewards[name]) or 0.0) <= high for name in split.within)


@pytest.mark.parametrize(
    ("totals", "main", "useful"),
    [
        ([1.0, 0.0], [1.0, 0.0], True),
        ([1.2, 1.0], [1.0, 1.0], False),
        ([0.2, 0.0], [0.0, 0.0], False),
        ([0.5, 0.5], [0.5, 0.5], False),
        ([0.6, 0.5], [0.5, 0.5], True),
        ([1.0, None], [1.0, 0.0], False),
        ([None, None], [None, None], False),
        ([1.0], [1.0], False),
        ([], [], False),
    ],
)
def test_a_group_needs_spread_and_a_middle(
    totals: list[float | None], main: list[float | None], useful: bool
) -> None:
    """Neither spread by shaping alone nor a mean in the middle alone makes a group worth training on."""
    assert informative(totals, main) is useful


@given(values)
def test_an_informative_group_has_a_gradient(main: list[float | None]) -> None:
    """By its main reward alone, a group is informative exactly where some advantage isn't 0."""
    assert any(advantages([main], "group")[0]) is informative(main, main)


@given(st.integers(0, 10), st.sampled_from([0.0, 0.083, 0.5, 1.0]), st.integers(0, 3))
def test_a_group_without_spread_has_no_gradient(count: int, value: float, unjudged: int) -> None:
    """However many replies are alike, and whether or not some weren't judged, it teaches nothing."""
    main = [value] * count + [None] * unjudged
    assert not informative(main, main)
    assert not any(advantages([main], "group")[0])


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 10), st.integers(1, 6))
def test_a_plan_keeps_its_bounds(groups: list[bool], wanted: int, rounds: int) -> None:
    """It trains on informative groups only, at most `wanted`; redrawing is bounded in size and rounds."""
    batch = next_batch(groups, wanted, rounds)
    assert all(groups[place] for place in batch.train)
    assert not any(groups[place] for place in batch.fill)
    assert 0 <= batch.redraw <= wanted
    if batch.redraw:
        assert sum(groups) < wanted
        assert rounds < MAX_ROUNDS
        assert not batch.skip
    else:
        assert len(batch.train) == min(wanted, sum(groups))
        assert len(batch.train) + len(batch.fill) == min(wanted, len(groups))
        assert batch.skip == (not any(groups))


@given(st.data(), st.integers(1, 8))
def test_sampling_ends(data: st.DataObject, wanted: int) -> None:
    """After three rounds at most there is a batch, a smaller batch, or a skipped step."""
    groups: list[bool] = []
    redraw, rounds = wanted, 0
    while redraw:
        groups += data.draw(st.lists(st.booleans(), min_size=redraw, max_size=redraw))
        rounds += 1
        batch = next_batch(groups, wanted, rounds)
        redraw = batch.redraw
    assert rounds <= MAX_ROUNDS
    assert len(batch.train) == min(wanted, sum(groups))


def test_the_redraw_completes_the_batch_at_the_share_so_far() -> None:
    """With half of the groups informative it is twice the missing ones; with none, a whole batch."""
    assert next_batch([True, True, True, False, False, False], 6, 1).redraw == 6
    assert next_batch([True, True, True, False], 4, 1).redraw == 2
    assert next_batch([False] * 4, 4, 1).redraw == 4
    last = next_batch([False] * 8, 4, 3)
    assert (last.train, last.fill, last.skip) == ((), (0, 1, 2, 3), True)
