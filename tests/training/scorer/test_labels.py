"""What a classifier is taught about a reply."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.scorer.asking import LOW, WORKED, asked
from training.scorer.labels import change_digit, labelled_texts, step_labels, with_hard_negatives

TEMPLATE = "Q {question}\n{reasoning}\nA {answer}."


@pytest.mark.parametrize(
    ("thinking", "chain", "labels"),
    [
        (WORKED, WORKED, [True, True, True]),
        ("3+6=9\n2+5=8\n1+4=5", WORKED, [True, False, False]),
        ("3+6=9", WORKED, [True]),
        (f"{WORKED}\n0+0=0", WORKED, [True, True, True, False]),
        ("9 7 5", LOW, [True, True, True]),
        ("9 8 5", LOW, [True, False, False]),
        ("", WORKED, []),
    ],
)
def test_a_step_is_right_until_the_first_that_is_not(thinking: str, chain: str, labels: list[bool]) -> None:
    """Lines are steps, or words where the chain is one line; what goes on after the chain's end is wrong."""
    assert [right for _, right in step_labels(thinking, chain)] == labels


@given(st.text("0123456789+=\n ", max_size=40), st.text("0123456789+=\n ", max_size=40))
def test_steps_end_in_order_and_never_recover(thinking: str, chain: str) -> None:
    """Each at its last character."""
    found = step_labels(thinking, chain)
    ends = [end for end, _ in found]
    assert ends == sorted(set(ends))
    assert all(0 < end <= len(thinking) for end in ends)
    labels = [right for _, right in found]
    assert labels == sorted(labels, reverse=True)


def test_a_reply_is_marked_as_serving_fills_the_template() -> None:
    """At its end with the verifier's label, and, where asked to, at the end of each step."""
    (whole,) = labelled_texts(TEMPLATE, [asked("579")])
    assert whole.text == f"Q What is 123+456?\n{WORKED}\nA 579."
    assert whole.marks == ((len(whole.text), True),)
    (stepwise,) = labelled_texts(TEMPLATE, [asked("578", thinking="3+6=9\n2+5=8")], steps=True)
    assert [(stepwise.text[:end].split("\n")[-1], right) for end, right in stepwise.marks] == [
        ("3+6=9", True),
        ("2+5=8", False),
        ("A 578.", False),
    ]


def test_steps_are_compared_with_the_chain_of_the_budget() -> None:
    """A short budget's chain is the short one."""
    (short,) = labelled_texts(TEMPLATE, [asked("579", thinking=LOW, budget="low")], steps=True)
    assert [right for _, right in short.marks] == [True] * 4


def test_a_reply_without_an_answer_is_no_example() -> None:
    """Serving doesn't score it either."""
    assert labelled_texts(TEMPLATE, [asked(" ")]) == []


@given(st.text(max_size=20), st.integers())
def test_a_near_miss_differs_in_one_digit(answer: str, seed: int) -> None:
    """And there is none where there is no digit."""
    missed = change_digit(answer, random.Random(seed))
    if missed is None:
        assert not set(answer) & set("0123456789")
    else:
        assert len(missed) == len(answer)
        assert sum(x != y for x, y in zip(missed, answer, strict=True)) == 1


def test_harder_negatives_are_what_wins_votes_and_near_misses() -> None:
    """The leading wrong answer once more for each of its samples, and each right reply spoilt."""
    (more,) = with_hard_negatives([asked("578", "578", "579", "1")], seed=0)
    added = more.replies[4:]
    assert [reply.answer for reply in added[:2]] == ["578", "578"]
    assert len(added) == 3
    assert not any(reply.correct for reply in added)
    assert added[2].answer not in ("579", "578578")
    assert added[2].thinking == WORKED


def test_a_vote_that_is_right_has_no_winning_mistake() -> None:
    """Then only near misses are added."""
    (more,) = with_hard_negatives([asked("579", "579", "1")], seed=0)
    assert len(more.replies) == 5
