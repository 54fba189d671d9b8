"""Worked chains are correct, and end in the question's answer."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.chains import CHAINS, running_totals, worked_chains
from training.data.word_problems import word_problems
from training.types import Problem


def calculated(step: str) -> bool:
    """Whether "a + b = c" is true."""
    left, _, right = step.partition(" = ")
    a, sign, b = left.split()
    results = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}
    if sign == "/":
        return int(b) * int(right) == int(a)
    return results[sign] == int(right)


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_running_totals_go_from_left_to_right_and_end_in_the_sum(
    terms: list[int], rng: random.Random
) -> None:
    """Each line is a true equation that starts with the last result; the short chain is the results."""
    signs = [rng.choice("+-") for _ in terms[1:]]
    expression = " ".join([str(terms[0]), *(f"{s} {t}" for s, t in zip(signs, terms[1:], strict=True))])
    chains = running_totals(expression)
    assert chains is not None
    steps = chains["high"].split("\n")
    assert all(map(calculated, steps))
    results = [step.rpartition(" = ")[2] for step in steps]
    assert [step.split()[0] for step in steps[1:]] == results[:-1]
    assert chains["low"].split(", ") == results
    expected = terms[0] + sum(t if s == "+" else -t for s, t in zip(signs, terms[1:], strict=True))
    assert int(results[-1]) == expected


@pytest.mark.parametrize("expression", ["2 * 3", "( 1 + 2 )", "7", "1 + x", ""])
def test_another_expression_has_no_chain(expression: str) -> None:
    """Where a chain can't be written it is None, never a wrong chain."""
    assert running_totals(expression) is None


def test_a_symbolic_solution_loses_its_answer_line() -> None:
    """GSM-Symbolic's own words are the long chain, its equations the short one."""
    metadata = {"answer_cot": "He has 3*4=12 pens.\nThen 12-5=7 are left.\n#### 7"}
    assert worked_chains("gsm_symbolic", metadata) == {
        "high": "He has 3*4=12 pens.\nThen 12-5=7 are left.",
        "low": "3*4=12, 12-5=7",
    }


def test_a_task_without_a_teacher_has_no_chain() -> None:
    """Only the tasks of the table have chains."""
    assert "rubiks_cube" not in CHAINS
    assert worked_chains("rubiks_cube", {}) is None


@given(st.integers(0, 10_000))
def test_word_problems_are_right_and_worked_in_two_steps(seed: int) -> None:
    """Both equations are true, the second ends in the answer, and the same seed gives the same problem."""
    problem = next(word_problems(str(seed)))
    first, second = problem.extra["chains"]["high"].split("\n")
    assert calculated(first)
    assert calculated(second)
    assert second.endswith(f"= {problem.gold}")
    assert int(problem.gold or "-1") >= 0
    again: Problem = next(word_problems(str(seed)))
    assert again == problem
