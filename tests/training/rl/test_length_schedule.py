"""The length schedule."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.rl.length_schedule import LengthSchedule, LengthState, next_length, start_length
from training.trainer.saved_state import from_json, to_json

SCHEDULE = LengthSchedule(start=100, maximum=300, factor=2.0, max_truncated=0.25, window=2)


def test_it_grows_when_few_are_truncated() -> None:
    """After a whole window with few truncated replies the limit grows, up to its maximum."""
    state = start_length(SCHEDULE)
    limits = []
    for _ in range(6):
        state = next_length(SCHEDULE, state, [True, True, True, False])
        limits.append(state.limit)
    assert limits == [100, 200, 200, 300, 300, 300]


def test_it_waits_while_many_are_truncated() -> None:
    """Truncated replies hold the limit where it is, until the window has left them behind."""
    state = start_length(SCHEDULE)
    for finished in ([False, False], [True, True], [False, False], [True, True]):
        state = next_length(SCHEDULE, state, finished)
        assert state.limit == 100
    state = next_length(SCHEDULE, state, [True, True])
    assert state == LengthState(200)


steps = st.lists(st.lists(st.booleans(), max_size=4), max_size=30)


schedules = st.builds(
    lambda start, more, factor, share, window: LengthSchedule(start, start + more, factor, share, window),
    st.integers(1, 500),
    st.integers(0, 500),
    st.floats(1.01, 4),
    st.floats(0, 1),
    st.integers(1, 5),
)


@given(steps, schedules)
def test_it_never_shrinks_nor_passes_its_maximum(seen: list[list[bool]], schedule: LengthSchedule) -> None:
    """Limits only rise, up to the maximum, and a state stored as JSON goes on in the same way."""
    state = start_length(schedule)
    for finished in seen:
        following = next_length(schedule, state, finished)
        assert state.limit <= following.limit <= schedule.maximum
        restored = from_json(LengthState, json.loads(json.dumps(to_json(state))))
        assert next_length(schedule, restored, finished) == following
        state = following


@pytest.mark.parametrize(
    "wrong",
    [{"start": 0}, {"start": 400}, {"factor": 1.0}, {"window": 0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_schedule_must_make_sense(wrong: dict[str, float]) -> None:
    """A start over the maximum, or a factor that doesn't grow, is an error before the run."""
    with pytest.raises(ValueError, match="length schedule"):
        LengthSchedule(**{"start": 100, "maximum": 300, **wrong})  # type: ignore[arg-type]
