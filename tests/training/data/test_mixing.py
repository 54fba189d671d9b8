"""The data mixture of a run, and the budgets it asks with."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.prompts import LEVELS
from training.data.budgets import BudgetSampler
from training.data.mixing import Mixture, general_count, problem_order
from training.types import NO_BUDGET, Problem


def problems(name: str, count: int) -> list[Problem]:
    """Return `count` problems with different ids."""
    return [Problem(f"{name}/{i}", f"{name} {i}?", str(i), general=name == "general") for i in range(count)]


sizes = st.integers(1, 20)
seeds = st.integers(0, 5)


@given(sizes, sizes, seeds, st.integers(0, 50))
def test_three_to_one_in_every_block(reasoning: int, general: int, seed: int, block: int) -> None:
    """Every four problems from a multiple of four on are three of reasoning and a general one."""
    mixture = Mixture([problems("reasoning", reasoning), problems("general", general)], (3, 1), seed)
    kinds = Counter(item.problem.general for item in mixture.items(4 * block, 4))
    assert kinds == {False: 3, True: 1}


@given(sizes, sizes, seeds, st.integers(0, 100), st.integers(0, 20))
def test_resuming_changes_nothing(reasoning: int, general: int, seed: int, start: int, count: int) -> None:
    """What comes after a position depends on nothing before it."""
    streams = [problems("reasoning", reasoning), problems("general", general)]
    whole = Mixture(streams, (3, 1), seed).items(0, start + count)
    assert Mixture(streams, (3, 1), seed).items(start, count) == whole[start:]


@given(sizes, sizes, seeds)
def test_an_epoch_holds_every_problem_once(reasoning: int, general: int, seed: int) -> None:
    """No problem comes again before all of its stream have come."""
    mixture = Mixture([problems("reasoning", reasoning), problems("general", general)], (3, 1), seed)
    items = mixture.items(0, 4 * 3 * reasoning)
    for epoch in range(3):
        of_epoch = [item.problem.id for item in items if item.epoch == epoch and not item.problem.general]
        assert sorted(of_epoch) == sorted({problem.id for problem in mixture.streams[0]})


def test_epochs_and_seeds_differ() -> None:
    """Each epoch has its own order, and so has each seed."""
    stream = problems("reasoning", 20)
    first = [item.problem.id for item in Mixture([stream], (1,), 1).items(0, 40)]
    assert first[:20] != first[20:]
    assert first[:20] != [item.problem.id for item in Mixture([stream], (1,), 2).items(0, 20)]


@pytest.mark.parametrize("parts", [(3,), (0, 0), (-1, 2), (3, 1)])
def test_a_mixture_must_be_possible(parts: tuple[int, ...]) -> None:
    """Parts without a stream, no parts, negative parts, and a part of an empty stream are errors."""
    with pytest.raises(ValueError, match="mixture"):
        Mixture([problems("reasoning", 3), []], parts)
    with pytest.raises(IndexError):
        Mixture([problems("reasoning", 3)], (1,))[-1]


weighted = st.dictionaries(st.sampled_from([*LEVELS, NO_BUDGET]), st.integers(1, 5), min_size=1)


@given(weighted, seeds, st.integers(0, 3), sizes)
def test_a_problem_keeps_its_level_within_an_epoch(
    weights: dict[str, int], seed: int, epoch: int, count: int
) -> None:
    """The order in which the weights are given doesn't matter; general problems have no level."""
    sampler = BudgetSampler(weights, seed)
    again = BudgetSampler(dict(reversed(weights.items())), seed)
    for problem in problems("reasoning", count):
        level = sampler.level(problem, epoch)
        assert (level or NO_BUDGET) in weights
        assert level == again.level(problem, epoch)
    assert sampler.level(problems("general", 1)[0], epoch) is None


def test_levels_come_by_their_weights() -> None:
    """Over many problems each level has about its share, and every epoch draws again."""
    sampler = BudgetSampler({"off": 1, "high": 3, "low": 0}, seed=1)
    many = problems("reasoning", 2000)
    counts = Counter(sampler.level(problem, 0) for problem in many)
    assert set(counts) == {"off", "high"}
    assert 440 < counts["off"] < 560
    assert any(sampler.level(problem, 0) != sampler.level(problem, 1) for problem in many)


@pytest.mark.parametrize("weights", [{}, {"off": 0}, {"off": -1, "low": 3}, {"huge": 1}])
def test_weights_must_make_sense(weights: dict[str, float]) -> None:
    """A level that doesn't exist, or nothing to draw from, is an error before the run."""
    with pytest.raises(ValueError, match="budget"):
        BudgetSampler(weights)


def test_a_stage_asks_general_problems_at_their_share() -> None:
    """In every hundred they have their share, however many problems of each kind there are."""
    both = [*problems("reasoning", 30), *problems("general", 3)]
    order = problem_order(both, 400, 0.25, 5)
    hundreds = [order[start : start + 100] for start in range(0, 400, 100)]
    assert [sum(problem.general for problem in hundred) for hundred in hundreds] == [25] * 4
    assert problem_order(both, 100, 0.25, 5) == order[:100]
    assert {problem.id for problem in order} == {problem.id for problem in both}


def test_problems_of_one_kind_are_asked_once_an_epoch() -> None:
    """Without general problems every epoch has each problem once, in another order."""
    reasoning = problems("reasoning", 8)
    first, second = problem_order(reasoning, 16, 0.25, 1)[:8], problem_order(reasoning, 16, 0.25, 1)[8:]
    ids = {problem.id for problem in reasoning}
    assert {problem.id for problem in first} == {problem.id for problem in second} == ids
    assert first != second


@pytest.mark.parametrize(("count", "share"), [(300, 0.25), (1000, 0.1), (7, 0.0)])
def test_general_problems_make_up_their_share(count: int, share: float) -> None:
    """The share is of all problems, not of the others."""
    added = general_count(count, share)
    assert added / (count + added) == pytest.approx(share, abs=0.001)
