"""Problems that reasoning-gym makes."""

import sys
from decimal import Decimal

import pytest

from scorers.answers import verify
from training.data.gym import gym_problems
from training.data.problems import DataError


def test_without_reasoning_gym_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is only needed where a task is."""
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(DataError, match=r"pip install 'thinkgate\[eval\]'"):
        gym_problems("chain_sum", 3, 1)


@pytest.mark.parametrize(
    ("task", "tolerance"),
    [
        ("decimal_arithmetic", 0.001),
        ("decimal_arithmetic:min_num_decimal_places=2,max_num_decimal_places=2", 0.01),
        ("coin_flip", 0.0001),
        ("chain_sum", None),
    ],
)
def test_a_task_states_its_own_tolerance(task: str, tolerance: float | None) -> None:
    """Where a task marks by a distance its problems have it, and the task's own marks agree at the bound."""
    gym = pytest.importorskip("reasoning_gym")
    (problem,) = gym_problems(task, 1, 7)
    assert problem.tolerance == tolerance
    if task.startswith("decimal_arithmetic"):
        places = -Decimal(str(tolerance)).as_tuple().exponent
        entries = gym.create_dataset(
            "decimal_arithmetic", size=1, seed=7, min_num_decimal_places=places, max_num_decimal_places=places
        )
        for distance, right in (("1", True), ("1.01", False)):
            answer = str(Decimal(problem.gold or "") + Decimal(distance) * Decimal(str(tolerance)))
            assert verify(f"\\boxed{{{answer}}}", problem.gold or "", tolerance=tolerance) is right
            assert (entries.score_answer(answer, {"answer": problem.gold}) == 1.0) is right


def test_a_task_makes_the_same_problems_again() -> None:
    """A task's options go with its name, and its seed alone decides the problems."""
    pytest.importorskip("reasoning_gym")
    task = "chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=1"
    problems = gym_problems(task, 3, 1)
    assert [problem.id for problem in problems] == ["chain_sum/0", "chain_sum/1", "chain_sum/2"]
    assert {problem.source for problem in problems} == {"chain_sum"}
    assert problems == gym_problems(task, 3, 1)
    assert problems != gym_problems(task, 3, 2)
    assert len({problem.question for problem in gym_problems(task, 60, 1)}) == 60


def test_a_task_comes_with_worked_chains() -> None:
    """Where a chain can be written it ends in the answer."""
    pytest.importorskip("reasoning_gym")
    for problem in gym_problems("chain_sum:max_terms=3", 5, 1):
        assert problem.extra["chains"]["low"].split(", ")[-1] == problem.gold


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("no_such_task", "no_such_task"),
        ("chain_sum:max_terms=1", "max_terms must be >= min_terms"),
        ("chain_sum:hard", "option=value"),
    ],
)
def test_a_wrong_task_is_named(task: str, message: str) -> None:
    """A task that doesn't exist, and options that are wrong or malformed, are errors."""
    pytest.importorskip("reasoning_gym")
    with pytest.raises(DataError, match=message):
        gym_problems(task, 3, 1)
