"""Length rewards, as their papers define them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.prompts import LEVELS
from tests.training.rewards.making import SUM, reply
from training.rewards.length import (
    BudgetPenalty,
    LengthReward,
    OverlongPenalty,
    budget_penalty,
    length_reward,
    overlong_penalty,
)

lengths = st.integers(0, 5000)


@pytest.mark.parametrize(
    ("length", "penalty"),
    [(0, 0.0), (16384, 0.0), (18432, -0.5), (20479, -4095 / 4096), (20480, -1.0), (30000, -1.0)],
)
def test_dapo_s_own_numbers(length: int, penalty: float) -> None:
    """DAPO expects 16,384 tokens and cuts at 20,480."""
    assert overlong_penalty(length, 20480, 4096) == penalty
    assert OverlongPenalty(20480, 4096)(SUM, [reply("", tokens=length)], [1.0]) == [penalty]


@given(lengths, lengths, st.integers(1, 5000), st.integers(0, 5000))
def test_a_longer_reply_never_has_a_smaller_penalty(a: int, b: int, limit: int, cache: int) -> None:
    """The value falls with the length, within [-1, 0], also without a cache."""
    low, high = sorted((a, b))
    assert -1 <= overlong_penalty(high, limit, cache) <= overlong_penalty(low, limit, cache) <= 0


def test_kimi_s_example() -> None:
    """The shortest gets 0.5, the longest -0.5, and a wrong reply at most 0."""
    assert length_reward([100, 200, 300], [True, True, True]) == [0.5, 0.0, -0.5]
    assert length_reward([100, 200, 300], [False, False, False]) == [0.0, 0.0, -0.5]
    assert length_reward([200, 200], [True, False]) == [0.0, 0.0]
    assert length_reward([], []) == []


@given(st.lists(st.tuples(lengths, st.booleans()), max_size=12), st.integers(1, 50), st.integers(0, 50))
def test_kimi_s_reward_is_relative(replies: list[tuple[int, bool]], scale: int, shift: int) -> None:
    """Only the group's own lengths matter: scaling and shifting all of them changes nothing."""
    sizes, right = [size for size, _ in replies], [ok for _, ok in replies]
    values = length_reward(sizes, right)
    assert values == pytest.approx(length_reward([scale * size + shift for size in sizes], right))
    assert all(-0.5 <= value <= (0.5 if ok else 0.0) for value, ok in zip(values, right, strict=True))
    if all(right):
        assert [size for _, size in sorted(zip(values, sizes, strict=True), reverse=True)] == sorted(
            sizes
        ) or (min(sizes) == max(sizes))


def test_kimi_looks_at_judged_replies_only() -> None:
    """A reply without a main reward has none here either, and doesn't change the others'."""
    replies = [reply("", tokens=n) for n in (10, 20, 30, 900)]
    assert LengthReward()(SUM, replies, [1.0, 0.0, 1.0, None]) == [0.5, 0.0, -0.5, None]
    assert LengthReward()(SUM, replies[:1], [None]) == [None]


@given(lengths, lengths, st.integers(0, 2000), st.floats(0, 1))
def test_a_budget_is_a_maximum(a: int, b: int, limit: int, slack: float) -> None:
    """Within the budget there is no penalty; beyond it more thinking never has a smaller one."""
    low, high = sorted((a, b))
    assert -1 <= budget_penalty(high, limit, slack) <= budget_penalty(low, limit, slack) <= 0
    assert budget_penalty(min(a, limit), limit, slack) == 0


def test_budgets_are_the_gateway_s_levels() -> None:
    """The limit is the level's, or its share of the context where that is less; off allows no token."""
    reward = BudgetPenalty(LEVELS, context=2048, slack=0.5)

    def penalty(thinking_tokens: int, budget: str | None) -> float | None:
        return reward(SUM, [reply("", thinking_tokens=thinking_tokens, budget=budget)], [1.0])[0]

    assert [penalty(n, "minimal") for n in (0, 128, 160, 192, 900)] == [0, 0, -0.5, -1, -1]
    assert [penalty(n, "off") for n in (0, 1)] == [0, -1]
    assert penalty(900, None) is None
    assert BudgetPenalty()(SUM, [reply("", thinking_tokens=9, budget="max")], [1.0]) == [None]
