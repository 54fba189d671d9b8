"""Problems of judging an answer, for a judge that solves the question again."""

import random
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from tests.training.scorer.additions import WORKED, addition, sampled
from training.config import Miss
from training.scorer.judge_problems import (
    compare_characters,
    judge_problem,
    judge_problems_by_rule,
    judge_problems_from_replies,
    judge_problems_to_imitate,
    perturb_answer,
)

FORM = "{question} Is it {answer}?"


def test_a_judge_problem_is_verifiable_and_its_chain_ends_with_a_comparison() -> None:
    """The chain compares the result with the answer by character; the last yes or no is the reply."""
    problem = judge_problem(FORM, addition(), "580", right=False)
    assert problem.question == "What is 123+456? Is it 580?"
    assert (problem.gold, problem.reward) == ("no", "correct")
    assert problem.extra["chains"]["high"] == f"{WORKED}\n579\n5:5 yes 7:8 no"


def test_answers_of_other_lengths_are_compared_too() -> None:
    """A missing character differs from any other; a longer answer adds at most one pair."""
    assert compare_characters("12", "1").endswith("1:1 yes 2:- no")
    assert compare_characters("12", "12345").endswith("1:1 yes 2:2 yes -:3 no")
    assert compare_characters("12", "12").endswith("1:1 yes 2:2 yes")


def test_about_half_of_the_problems_by_rule_are_right() -> None:
    """The others have a perturbed answer; the seed decides all of it."""
    problems = [addition(f"What is {n}+0?", str(n)) for n in range(1000, 1200)]
    judged = judge_problems_by_rule(FORM, problems, seed=1)
    assert judged == judge_problems_by_rule(FORM, problems, seed=1)
    assert 70 < sum(problem.gold == "yes" for problem in judged) < 130
    for problem, source in zip(judged, problems, strict=True):
        assert (problem.question.endswith(f"Is it {source.gold}?")) == (problem.gold == "yes")


def test_a_policys_most_frequent_mistakes_are_judged() -> None:
    """The correct answer comes too, so that the question alone does not tell the reply."""
    judged = judge_problems_from_replies(FORM, [sampled("1", "580", "580", "2", "580", "2", "579")], seed=0)
    assert [(problem.question.split()[-1], problem.gold) for problem in judged] == [
        ("580?", "no"),
        ("2?", "no"),
        ("579?", "yes"),
    ]


def test_without_a_mistake_a_perturbed_answer_is_judged() -> None:
    """Yes and no stay equally likely."""
    judged = judge_problems_from_replies(FORM, [sampled("579", "579")], seed=0)
    assert [problem.gold for problem in judged] == ["no", "yes"]


def test_imitation_covers_rules_and_replies() -> None:
    """Problems by rule come first, then the policy's own mistakes; each has a worked chain."""
    problems = [addition(f"What is {n}+0?", str(n)) for n in range(3)]
    judged = judge_problems_to_imitate(FORM, problems, [sampled("580", "579")], seed=0)
    assert (
        judged[:3]
        == judge_problems_by_rule(FORM, problems, seed=0)
        == judge_problems_to_imitate(FORM, problems, [], seed=0)
    )
    assert [problem.question.split()[-1] for problem in judged[3:]] == ["580?", "579?"]
    assert all(problem.extra["chains"] for problem in judged)


@given(st.integers(-(10**6), 10**6), st.integers())
def test_a_perturbed_number_differs_in_the_given_way(number: int, seed: int) -> None:
    """By its sign, by one digit more or less, or by one changed digit; 0 only by a changed digit."""
    answer = str(number)
    for miss in get_args(Miss):
        wrong = perturb_answer(answer, (miss,), random.Random(seed))
        assert wrong is not None
        assert wrong != answer
        if miss == "sign" and number:
            assert int(wrong) == -number
        elif miss == "length" and number:
            assert abs(len(wrong) - len(answer)) == 1
            assert int(wrong) * number >= 0
        else:
            assert sum(a != b for a, b in zip(wrong, answer, strict=True)) == 1


def test_other_answers_are_perturbed_by_a_digit_or_not_at_all() -> None:
    """A fraction with a flipped sign need not be wrong; a word has no digit."""
    assert perturb_answer("1/2", ("sign",), random.Random(0)) in {f"{n}/2" for n in range(10)} | {
        f"1/{n}" for n in range(10)
    }
    assert perturb_answer("blue", ("sign", "length"), random.Random(0)) is None
