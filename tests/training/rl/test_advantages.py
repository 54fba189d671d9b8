"""Advantages: the algebra of each normalisation."""

from itertools import pairwise
from statistics import fmean, stdev
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.rl.advantages import FLAT, Normalisation, advantages, spread

reward = st.none() | st.integers(-20, 20).map(lambda n: n / 4)
batches = st.lists(st.lists(reward, max_size=6), max_size=5)
every = st.sampled_from(get_args(Normalisation))


def flat(groups: list[list[float | None]]) -> list[float]:
    """Return the values of all groups, without the Nones."""
    return [value for group in groups for value in group if value is not None]


@given(batches, every)
def test_a_group_s_advantages_sum_to_zero(groups: list[list[float | None]], how: Normalisation) -> None:
    """A reply is better or worse than its own group only; without a reward it has no advantage."""
    result = advantages(groups, how)
    assert [[v is None for v in group] for group in result] == [
        [v is None for v in group] for group in groups
    ]
    for group in result:
        assert sum(v for v in group if v is not None) == pytest.approx(0, abs=1e-9)


@given(batches, every, st.integers(1, 8), st.integers(-5, 5))
def test_scale_and_shift(
    groups: list[list[float | None]], how: Normalisation, scale: int, shift: int
) -> None:
    """Adding to all rewards changes nothing; multiplying them does only where no deviation divides."""
    moved = [[None if v is None else scale * v + shift for v in group] for group in groups]
    times = scale if how == "none" else 1
    assert flat(advantages(moved, how)) == pytest.approx([times * v for v in flat(advantages(groups, how))])


@given(batches, every)
def test_better_is_higher(groups: list[list[float | None]], how: Normalisation) -> None:
    """Within a group the order of the rewards is the order of the advantages, and equal stays equal."""
    for rewards, result in zip(groups, advantages(groups, how), strict=True):
        pairs = sorted(
            (r, a) for r, a in zip(rewards, result, strict=True) if r is not None and a is not None
        )
        for (low, less), (high, more) in pairwise(pairs):
            assert less == more if low == high else less < more


@given(batches)
def test_units(groups: list[list[float | None]]) -> None:
    """The deviation is 1: of a group where it divides, and of the whole batch in Magistral's way."""
    for rewards, result in zip(groups, advantages(groups, "group"), strict=True):
        assert spread(result) == pytest.approx(1.0 if spread(rewards) else 0.0)
    centred = flat(advantages(groups, "none"))
    assert spread(flat(advantages(groups, "magistral"))) == pytest.approx(1.0 if spread(centred) else 0.0)


@given(batches, every)
def test_flat_groups_teach_nothing(groups: list[list[float | None]], how: Normalisation) -> None:
    """Where all replies of a group get the same reward, every advantage is 0, not amplified rounding."""
    tenths = [[None if v is None else 0.1 for v in group] for group in groups]
    assert all(v == 0 for v in flat(advantages(tenths, how)) if how != "none")
    assert flat(advantages(tenths, how)) == pytest.approx([0] * len(flat(tenths)), abs=1e-12)


def test_worked_by_hand() -> None:
    """Two groups in every unit: one with a correct reply in four, one with half of them correct."""
    groups = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
    centred = [[0.75, -0.25, -0.25, -0.25], [0.5, 0.5, -0.5, -0.5]]
    assert advantages(groups, "none") == centred
    assert advantages(groups, "group")[0] == pytest.approx([1.5, -0.5, -0.5, -0.5])
    all_rewards, all_centred = flat(groups), flat(centred)
    assert advantages(groups, "batch")[1][0] == pytest.approx(0.5 / stdev(all_rewards))
    assert advantages(groups, "magistral")[0][0] == pytest.approx(0.75 / stdev(all_centred))
    assert fmean(all_centred) == 0
    assert spread([1.0, 1.0 + FLAT / 10]) == 0
