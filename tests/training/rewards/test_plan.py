"""Routing a row to its reward, and adding the shaping ones."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.rewards.making import SUM, reply
from training.rewards import REWARDS, SHAPING, RewardContext, RewardError, RewardPlan, reward_plan
from training.types import Completion, Problem, Reward

GOOD, WRONG = "<think>six sevens</think>The answer is 42.", "<think>six sevens</think>The answer is 41."
worth = st.none() | st.floats(-1, 1)


def giving(values: Sequence[float | None]) -> Reward:
    """A reward that gives these values, whatever it judges."""

    def reward(row: Problem, completions: Sequence[Completion]) -> Sequence[float | None]:
        return values

    return reward


def test_correctness_with_format_and_length() -> None:
    """The total is the main reward and the weighted others; every part is kept as it was."""
    plan = reward_plan(RewardContext(), {"correct"}, {"format": 0.2, "short": 0.1})
    judged = plan.judge(SUM, [reply(GOOD), reply(WRONG), reply("The answer is 42.")])
    assert judged.main == (1.0, 0.0, 1.0)
    assert judged.parts == {"format": (1.0, 1.0, 0.0), "short": (-0.5, -0.5, 0.5)}
    assert judged.totals == pytest.approx((1.15, 0.15, 1.05))


def test_each_row_goes_to_its_own_reward() -> None:
    """Rows name their reward; one that the run doesn't have is an error that says so."""
    plan = RewardPlan({"correct": giving([1.0]), "rubric": giving([0.5])})
    assert plan.judge(SUM, [reply(GOOD)]).totals == (1.0,)
    assert plan.judge(Problem("2", "Hi", reward="rubric"), [reply(GOOD)]).totals == (0.5,)
    with pytest.raises(RewardError, match="row '3': the run has no reward 'tests'"):
        plan.judge(Problem("3", "Hi", reward="tests"), [reply(GOOD)])


@given(st.lists(st.tuples(worth, worth, worth), max_size=6), st.floats(-2, 2))
def test_none_is_left_out(
    values: list[tuple[float | None, float | None, float | None]], weight: float
) -> None:
    """Without a main value there is no total; a shaping reward without one adds nothing."""
    main, first, second = ([each[i] for each in values] for i in range(3))
    shaping = {
        "a": (weight, lambda row, replies, main: first),
        "b": (1.0, lambda row, replies, main: second),
    }
    judged = RewardPlan({"correct": giving(main)}, shaping).judge(SUM, [reply(GOOD)] * len(values))
    for total, a, b, c in zip(judged.totals, main, first, second, strict=True):
        assert total == (None if a is None else pytest.approx(a + weight * (b or 0) + (c or 0)))


def test_unfinished_replies_can_be_left_out() -> None:
    """They are judged for the figures, but not trained on."""
    plan = reward_plan(RewardContext(), {"correct"}, {}, leave_out_unfinished=True)
    judged = plan.judge(SUM, [reply(GOOD), reply(GOOD, finished=False)])
    assert judged.totals == (1.0, None)
    assert judged.main == (1.0, 0.0)


@pytest.mark.parametrize(("kinds", "weights"), [({"sparkle"}, {}), ({"correct"}, {"sparkle": 1.0})])
def test_an_unknown_name_is_told(kinds: set[str], weights: dict[str, float]) -> None:
    """A reward that doesn't exist is an error before the run, with the names there are."""
    with pytest.raises(RewardError, match=r"'sparkle'; there are .*(correct|format)"):
        reward_plan(RewardContext(), kinds, weights)


@pytest.mark.parametrize("name", sorted(SHAPING))
def test_every_shaping_reward_judges_a_group(name: str) -> None:
    """Each gives one value for each reply, whatever the setting's defaults are."""
    plan = reward_plan(RewardContext(), {"correct"}, {name: 0.0})
    judged = plan.judge(SUM, [reply(GOOD), reply(WRONG, budget="low"), reply("")])
    assert len(judged.parts[name]) == 3
    assert judged.totals == judged.main
    assert "correct" in REWARDS
