"""Which questions are worth training on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.rl.advantages import advantages
from training.rl.filters import MAX_ROUNDS, by_difficulty, live, next_batch, pass_rate

values = st.lists(st.none() | st.sampled_from([0.0, 0.083, 0.5, 1.0]), max_size=10)


def test_the_band_holds_its_ends() -> None:
    """20% and 80% are kept; rarer and more frequent successes are not; part credit is no success."""
    rewards = {
        "never": [0.0] * 10,
        "some": [1.0, 0.0, 0.0, 0.0, 0.0],
        "most": [1.0, 1.0, 1.0, 1.0, 0.0],
        "always": [1.0] * 10,
        "nearly": [1.0] * 9 + [0.0],
        "parts": [0.9] * 5,
        "unjudged": [None, None],
    }
    sorts = by_difficulty(rewards)
    assert sorts.kept == ("some", "most")
    assert sorts.easy == ("always", "nearly")
    assert sorts.hard == ("never", "parts")
    assert sorts.unknown == ("unjudged",)


@given(st.dictionaries(st.text(max_size=3), values), st.floats(0, 0.5), st.floats(0.5, 1))
def test_every_question_falls_into_one_sort(
    rewards: dict[str, list[float | None]], low: float, high: float
) -> None:
    """None is lost or doubled, and what is kept lies in the band."""
    sorts = by_difficulty(rewards, low, high)
    assert sorted((*sorts.kept, *sorts.easy, *sorts.hard, *sorts.unknown)) == sorted(rewards)
    assert all(low <= (pass_rate(rewards[name]) or 0.0) <= high for name in sorts.kept)


@pytest.mark.parametrize(
    ("totals", "main", "alive"),
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
    totals: list[float | None], main: list[float | None], alive: bool
) -> None:
    """Neither spread by shaping alone, nor a mean in the middle alone, makes a group worth training on."""
    assert live(totals, main) is alive


@given(values)
def test_a_live_group_has_a_gradient(main: list[float | None]) -> None:
    """Where a group is live by its main reward alone some advantage isn't 0; where it is dead all are."""
    assert any(advantages([main], "group")[0]) is live(main, main)


@given(st.integers(0, 10), st.sampled_from([0.0, 0.083, 0.5, 1.0]), st.integers(0, 3))
def test_a_group_without_spread_has_no_gradient(count: int, value: float, unjudged: int) -> None:
    """However many are alike, and whether or not some weren't judged: it is dead, and nothing is learned."""
    main = [value] * count + [None] * unjudged
    assert not live(main, main)
    assert not any(advantages([main], "group")[0])


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 10), st.integers(1, 6))
def test_what_a_round_decides(alive: list[bool], wanted: int, rounds: int) -> None:
    """Only live groups are trained on, at most as many as wanted; redrawing is bounded in size and rounds."""
    batch = next_batch(alive, wanted, rounds)
    assert all(alive[place] for place in batch.train)
    assert not any(alive[place] for place in batch.fill)
    assert 0 <= batch.redraw <= wanted
    if batch.redraw:
        assert sum(alive) < wanted
        assert rounds < MAX_ROUNDS
        assert not batch.skip
    else:
        assert len(batch.train) == min(wanted, sum(alive))
        assert len(batch.train) + len(batch.fill) == min(wanted, len(alive))
        assert batch.skip == (not any(alive))


@given(st.data(), st.integers(1, 8))
def test_sampling_ends(data: st.DataObject, wanted: int) -> None:
    """Whatever is drawn, after three rounds at most there is a batch, a smaller one, or a skip."""
    alive: list[bool] = []
    redraw, rounds = wanted, 0
    while redraw:
        alive += data.draw(st.lists(st.booleans(), min_size=redraw, max_size=redraw))
        rounds += 1
        batch = next_batch(alive, wanted, rounds)
        redraw = batch.redraw
    assert rounds <= MAX_ROUNDS
    assert len(batch.train) == min(wanted, sum(alive))


def test_as_many_are_redrawn_as_are_likely_to_do() -> None:
    """With half of the groups dead, twice the missing ones are drawn; with all dead, a whole batch."""
    assert next_batch([True, True, True, False, False, False], 6, 1).redraw == 6
    assert next_batch([True, True, True, False], 4, 1).redraw == 2
    assert next_batch([False] * 4, 4, 1).redraw == 4
    last = next_batch([False] * 8, 4, 3)
    assert (last.train, last.fill, last.skip) == ((), (0, 1, 2, 3), True)
