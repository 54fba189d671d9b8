"""The main reward of each problem, and the shaping rewards that are added."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.rewards.making import SUM, reply
from training.rewards import REWARDS, SHAPING, RewardContext, RewardError, RewardPlan, reward_plan
from training.types import SHAPING_REWARDS, Completion, Problem, Reward

GOOD, WRONG = "<think>six sevens</think>The answer is 42.", "<think>six sevens</think>The answer is 41."
optional_rewards = st.none() | st.floats(-1, 1)


def constant(values: Sequence[float | None]) -> Reward:
    """Return a reward that gives these values, whatever it judges."""

    def reward(problem: Problem, completions: Sequence[Completion]) -> Sequence[float | None]:
        return values

    return reward


def test_correctness_with_format_and_length() -> None:
    """The total is the main reward plus the weighted others; the parts are without their weight."""
    plan = reward_plan(RewardContext(), {"correct"}, {"format": 0.2, "short": 0.1})
    rewards = plan.judge(SUM, [reply(GOOD), reply(WRONG), reply("The answer is 42.")])
    assert rewards.main == (1.0, 0.0, 1.0)
    assert rewards.parts == {"format": (1.0, 1.0, 0.0), "short": (-0.5, -0.5, 0.5)}
    assert rewards.totals == pytest.approx((1.15, 0.15, 1.05))


def test_each_problem_has_its_own_reward() -> None:
    """Problems name their reward; one that the run doesn't have is an error."""
    plan = RewardPlan({"correct": constant([1.0]), "rubric": constant([0.5])})
    assert plan.judge(SUM, [reply(GOOD)]).totals == (1.0,)
    assert plan.judge(Problem("2", "Hi", reward="rubric"), [reply(GOOD)]).totals == (0.5,)
    with pytest.raises(RewardError, match="problem '3': the run has no reward 'tests'"):
        plan.judge(Problem("3", "Hi", reward="tests"), [reply(GOOD)])


@given(
    st.lists(st.tuples(optional_rewards, optional_rewards, optional_rewards), max_size=6), st.floats(-2, 2)
)
def test_none_is_left_out(
    values: list[tuple[float | None, float | None, float | None]], weight: float
) -> None:
    """Without a main value there is no total; a shaping reward without one adds nothing."""
    main, first, second = ([triple[i] for triple in values] for i in range(3))
    shaping = {
        "a": (weight, lambda problem, replies, main: first),
        "b": (1.0, lambda problem, replies, main: second),
    }
    rewards = RewardPlan({"correct": constant(main)}, shaping).judge(SUM, [reply(GOOD)] * len(values))
    for total, a, b, c in zip(rewards.totals, main, first, second, strict=True):
        assert total == (None if a is None else pytest.approx(a + weight * (b or 0) + (c or 0)))


def test_unfinished_replies_can_be_left_out() -> None:
    """They are judged for the metrics, but training leaves them out."""
    plan = reward_plan(RewardContext(), {"correct"}, {}, leave_out_unfinished=True)
    rewards = plan.judge(SUM, [reply(GOOD), reply(GOOD, finished=False)])
    assert rewards.totals == (1.0, None)
    assert rewards.main == (1.0, 0.0)


@pytest.mark.parametrize(("kinds", "weights"), [({"sparkle"}, {}), ({"correct"}, {"sparkle": 1.0})])
def test_an_unknown_name_is_an_error(kinds: set[str], weights: dict[str, float]) -> None:
    """A reward that doesn't exist is an error before the run, which lists the existing names."""
    with pytest.raises(RewardError, match=r"'sparkle'; there are .*(correct|format)"):
        reward_plan(RewardContext(), kinds, weights)


@pytest.mark.parametrize("name", sorted(SHAPING))
def test_every_shaping_reward_judges_a_group(name: str) -> None:
    """Each gives one value for each reply with the defaults of the context."""
    plan = reward_plan(RewardContext(), {"correct"}, {name: 0.0})
    rewards = plan.judge(SUM, [reply(GOOD), reply(WRONG, budget="low"), reply("")])
    assert len(rewards.parts[name]) == 3
    assert rewards.totals == rewards.main
    assert "correct" in REWARDS


def test_the_configuration_knows_all_shaping_rewards() -> None:
    """It checks names without importing the rewards, so the names stand in two places."""
    assert tuple(SHAPING) == SHAPING_REWARDS
