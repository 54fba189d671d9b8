"""Checks: questions about answers, for a judge that works them out anew."""

import random
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from tests.training.scorer.asking import WORKED, asked, row
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


def test_a_check_is_a_verifiable_row_whose_chain_ends_with_a_comparison() -> None:
    """The result, and its characters against the answer's; the last pair's verdict is the reply."""
    found = judge_problem(FORM, row(), "580", right=False)
    assert found.question == "What is 123+456? Is it 580?"
    assert (found.gold, found.reward) == ("no", "correct")
    assert found.extra["chains"]["high"] == f"{WORKED}\n579\n5:5 yes 7:8 no"


def test_answers_of_other_lengths_are_set_beside_the_result_too() -> None:
    """What is missing on either side differs from what is there; a long answer adds one pair at most."""
    assert compare_characters("12", "1").endswith("1:1 yes 2:- no")
    assert compare_characters("12", "12345").endswith("1:1 yes 2:2 yes -:3 no")
    assert compare_characters("12", "12").endswith("1:1 yes 2:2 yes")


def test_by_rule_about_half_are_right() -> None:
    """The others are near misses; deterministic."""
    rows = [row(f"What is {n}+0?", str(n)) for n in range(1000, 1200)]
    found = judge_problems_by_rule(FORM, rows, seed=1)
    assert found == judge_problems_by_rule(FORM, rows, seed=1)
    assert 70 < sum(each.gold == "yes" for each in found) < 130
    for each, source in zip(found, rows, strict=True):
        assert (each.question.endswith(f"Is it {source.gold}?")) == (each.gold == "yes")


def test_of_a_policy_its_commonest_mistakes_are_checked() -> None:
    """Beside the right answer, so that the judge can't tell by the question alone."""
    found = judge_problems_from_replies(FORM, [asked("1", "580", "580", "2", "580", "2", "579")], seed=0)
    assert [(each.question.split()[-1], each.gold) for each in found] == [
        ("580?", "no"),
        ("2?", "no"),
        ("579?", "yes"),
    ]


def test_where_there_is_no_mistake_a_near_miss_is_checked() -> None:
    """Both verdicts stay equally likely."""
    found = judge_problems_from_replies(FORM, [asked("579", "579")], seed=0)
    assert [each.gold for each in found] == ["no", "yes"]


def test_both_are_imitated_where_no_reinforcement_follows() -> None:
    """Rows by rule and the policy's own mistakes, each with a chain; without replies the rows alone."""
    rows = [row(f"What is {n}+0?", str(n)) for n in range(3)]
    found = judge_problems_to_imitate(FORM, rows, [asked("580", "579")], seed=0)
    assert (
        found[:3]
        == judge_problems_by_rule(FORM, rows, seed=0)
        == judge_problems_to_imitate(FORM, rows, [], seed=0)
    )
    assert [each.question.split()[-1] for each in found[3:]] == ["580?", "579?"]
    assert all(each.extra["chains"] for each in found)


@given(st.integers(-(10**6), 10**6), st.integers())
def test_a_miss_is_another_number_that_differs_as_it_says(number: int, seed: int) -> None:
    """By its sign, by one digit too many or too few, or by one other digit; 0 by a digit alone."""
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


def test_other_answers_miss_by_a_digit_or_not_at_all() -> None:
    """A fraction has no sign to flip that would be surely wrong; a word has no digit."""
    assert perturb_answer("1/2", ("sign",), random.Random(0)) in {f"{n}/2" for n in range(10)} | {
        f"1/{n}" for n in range(10)
    }
    assert perturb_answer("blue", ("sign", "length"), random.Random(0)) is None
