"""The order in which a run sees its rows, and the budgets it asks with."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.prompts import LEVELS
from policies.thinking import Markup
from training.data.budgets import BudgetSampler
from training.data.mixing import Mix, beside, ordered
from training.types import NO_BUDGET, Problem


def rows(name: str, count: int) -> list[Problem]:
    """So many rows, told apart by their ids."""
    return [Problem(f"{name}/{i}", f"{name} {i}?", str(i), general=name == "general") for i in range(count)]


sizes = st.integers(1, 20)
seeds = st.integers(0, 5)


@given(sizes, sizes, seeds, st.integers(0, 50))
def test_three_to_one_in_every_block(reasoning: int, general: int, seed: int, block: int) -> None:
    """Every four rows from a multiple of four on are three reasoning rows and a general one."""
    mix = Mix([rows("reasoning", reasoning), rows("general", general)], (3, 1), seed)
    kinds = Counter(drawn.row.general for drawn in mix.take(4 * block, 4))
    assert kinds == {False: 3, True: 1}


@given(sizes, sizes, seeds, st.integers(0, 100), st.integers(0, 20))
def test_resuming_changes_nothing(reasoning: int, general: int, seed: int, start: int, count: int) -> None:
    """What comes after a position depends on no row drawn before."""
    streams = [rows("reasoning", reasoning), rows("general", general)]
    through = Mix(streams, (3, 1), seed).take(0, start + count)
    assert Mix(streams, (3, 1), seed).take(start, count) == through[start:]


@given(sizes, sizes, seeds)
def test_an_epoch_holds_every_row_once(reasoning: int, general: int, seed: int) -> None:
    """No row comes again before all of its stream have come."""
    mix = Mix([rows("reasoning", reasoning), rows("general", general)], (3, 1), seed)
    seen = mix.take(0, 4 * 3 * reasoning)
    for epoch in range(3):
        of_epoch = [drawn.row.id for drawn in seen if drawn.epoch == epoch and not drawn.row.general]
        assert sorted(of_epoch) == sorted({row.id for row in mix.streams[0]})


def test_epochs_and_seeds_differ() -> None:
    """Each epoch has its own order, and so has each seed."""
    stream = rows("reasoning", 20)
    first = [drawn.row.id for drawn in Mix([stream], (1,), 1).take(0, 40)]
    assert first[:20] != first[20:]
    assert first[:20] != [drawn.row.id for drawn in Mix([stream], (1,), 2).take(0, 20)]


@pytest.mark.parametrize("parts", [(3,), (0, 0), (-1, 2), (3, 1)])
def test_a_mix_must_be_possible(parts: tuple[int, ...]) -> None:
    """Parts without a stream, none at all, negative ones, and a part of an empty stream are errors."""
    with pytest.raises(ValueError, match=r"a mix|in a mix"):
        Mix([rows("reasoning", 3), []], parts)
    with pytest.raises(IndexError):
        Mix([rows("reasoning", 3)], (1,))[-1]


weighted = st.dictionaries(st.sampled_from([*LEVELS, NO_BUDGET]), st.integers(1, 5), min_size=1)


@given(weighted, seeds, st.integers(0, 3), sizes)
def test_a_level_is_drawn_once_for_all(weights: dict[str, int], seed: int, epoch: int, count: int) -> None:
    """The same row has the same level in the same epoch, whatever order the weights were given in."""
    sampler = BudgetSampler(weights, seed)
    again = BudgetSampler(dict(reversed(weights.items())), seed)
    for row in rows("reasoning", count):
        level = sampler.level(row, epoch)
        assert (level or NO_BUDGET) in weights
        assert level == again.level(row, epoch)
    assert sampler.level(rows("general", 1)[0], epoch) is None


def test_levels_come_by_their_weights() -> None:
    """Over many rows each level has about its share, and epochs draw anew."""
    sampler = BudgetSampler({"off": 1, "high": 3, "low": 0}, seed=1)
    many = rows("reasoning", 2000)
    counts = Counter(sampler.level(row, 0) for row in many)
    assert set(counts) == {"off", "high"}
    assert 440 < counts["off"] < 560
    assert any(sampler.level(row, 0) != sampler.level(row, 1) for row in many)


def test_the_prompt_is_the_gateway_s() -> None:
    """What a level asks with is word for word what serving asks with."""
    sampler = BudgetSampler({"high": 1})
    assert sampler.prompt("high", Markup(), teach=False) == LEVELS["high"].prompt
    assert "<think>" in (sampler.prompt("high", Markup(), teach=True) or "")
    assert sampler.prompt(None, Markup(), teach=True) is None


@pytest.mark.parametrize("weights", [{}, {"off": 0}, {"off": -1, "low": 3}, {"huge": 1}])
def test_weights_must_make_sense(weights: dict[str, float]) -> None:
    """A level that doesn't exist, or nothing to draw from, is an error before the run."""
    with pytest.raises(ValueError, match="budget"):
        BudgetSampler(weights)


def test_a_stage_asks_general_rows_at_their_share_and_in_an_order_of_its_own() -> None:
    """However many rows of each kind there are: in every hundred the general ones have their share."""
    both = [*rows("reasoning", 30), *rows("general", 3)]
    asked = ordered(both, 400, 0.25, 5)
    assert [sum(row.general for row in asked[start : start + 100]) for start in range(0, 400, 100)] == [
        25
    ] * 4
    assert ordered(both, 100, 0.25, 5) == asked[:100]
    assert {row.id for row in asked} == {row.id for row in both}


def test_rows_of_one_kind_are_asked_once_an_epoch() -> None:
    """Without general rows every epoch has each row once, shuffled anew."""
    both = rows("reasoning", 8)
    first, second = ordered(both, 16, 0.25, 1)[:8], ordered(both, 16, 0.25, 1)[8:]
    assert {row.id for row in first} == {row.id for row in second} == {row.id for row in both}
    assert first != second


@pytest.mark.parametrize(("count", "share"), [(300, 0.25), (1000, 0.1), (7, 0.0)])
def test_general_rows_beside_others_make_up_their_share(count: int, share: float) -> None:
    """The share is of all rows, not of the others."""
    added = beside(count, share)
    assert added / (count + added) == pytest.approx(share, abs=0.001)
