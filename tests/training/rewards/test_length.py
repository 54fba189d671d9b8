"""Length rewards as their papers define them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.prompts import LEVELS
from tests.training.rewards.making import SUM, reply
from training.rewards.length import (
    KimiLength,
    Obedience,
    SoftOverlong,
    kimi_length,
    over_budget,
    soft_overlong,
)

lengths = st.integers(0, 5000)


@pytest.mark.parametrize(
    ("length", "worth"),
    [(0, 0.0), (16384, 0.0), (18432, -0.5), (20479, -4095 / 4096), (20480, -1.0), (30000, -1.0)],
)
def test_dapo_s_own_numbers(length: int, worth: float) -> None:
    """DAPO expects 16,384 tokens and cuts at 20,480."""
    assert soft_overlong(length, 20480, 4096) == worth
    assert SoftOverlong(20480, 4096)(SUM, [reply("", tokens=length)], [1.0]) == [worth]


@given(lengths, lengths, st.integers(1, 5000), st.integers(0, 5000))
def test_longer_is_never_punished_less(a: int, b: int, limit: int, cache: int) -> None:
    """The punishment falls with the length, within [-1, 0], also without a cache."""
    low, high = sorted((a, b))
    assert -1 <= soft_overlong(high, limit, cache) <= soft_overlong(low, limit, cache) <= 0


def test_kimi_s_example() -> None:
    """The shortest gets 0.5, the longest -0.5, and what is wrong at most 0."""
    assert kimi_length([100, 200, 300], [True, True, True]) == [0.5, 0.0, -0.5]
    assert kimi_length([100, 200, 300], [False, False, False]) == [0.0, 0.0, -0.5]
    assert kimi_length([200, 200], [True, False]) == [0.0, 0.0]
    assert kimi_length([], []) == []


@given(st.lists(st.tuples(lengths, st.booleans()), max_size=12), st.integers(1, 50), st.integers(0, 50))
def test_kimi_s_reward_is_relative(replies: list[tuple[int, bool]], scale: int, shift: int) -> None:
    """Only the group's own lengths matter: scaling and shifting all of them changes nothing."""
    sizes, right = [size for size, _ in replies], [ok for _, ok in replies]
    values = kimi_length(sizes, right)
    assert values == pytest.approx(kimi_length([scale * size + shift for size in sizes], right))
    assert all(-0.5 <= value <= (0.5 if ok else 0.0) for value, ok in zip(values, right, strict=True))
    if all(right):
        assert [size for _, size in sorted(zip(values, sizes, strict=True), reverse=True)] == sorted(
            sizes
        ) or (min(sizes) == max(sizes))


def test_kimi_looks_at_judged_replies_only() -> None:
    """A reply without a main reward has none here either, and moves no other's."""
    replies = [reply("", tokens=n) for n in (10, 20, 30, 900)]
    assert KimiLength()(SUM, replies, [1.0, 0.0, 1.0, None]) == [0.5, 0.0, -0.5, None]
    assert KimiLength()(SUM, replies[:1], [None]) == [None]


@given(lengths, lengths, st.integers(0, 2000), st.floats(0, 1))
def test_a_budget_is_a_most(a: int, b: int, limit: int, slack: float) -> None:
    """Within the budget nothing is punished, beyond it more is never punished less."""
    low, high = sorted((a, b))
    assert -1 <= over_budget(high, limit, slack) <= over_budget(low, limit, slack) <= 0
    assert over_budget(min(a, limit), limit, slack) == 0


def test_budgets_are_the_gateway_s_levels() -> None:
    """The limit is the level's, or its share of the context where that is less; off allows no token."""
    obey = Obedience(LEVELS, context=2048, slack=0.5)

    def worth(thought: int, budget: str | None) -> float | None:
        return obey(SUM, [reply("", thought=thought, budget=budget)], [1.0])[0]

    assert [worth(n, "minimal") for n in (0, 128, 160, 192, 900)] == [0, 0, -0.5, -1, -1]
    assert [worth(n, "off") for n in (0, 1)] == [0, -1]
    assert worth(900, None) is None
    assert Obedience()(SUM, [reply("", thought=9, budget="max")], [1.0]) == [None]
