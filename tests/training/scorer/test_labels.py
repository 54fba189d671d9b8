"""The labels that a classifier learns."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.scorer.additions import LOW, WORKED, sampled
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
def test_steps_are_right_up_to_the_first_wrong_one(thinking: str, chain: str, labels: list[bool]) -> None:
    """Steps are lines, or words if the chain is one line; steps after the chain's end are wrong."""
    assert [right for _, right in step_labels(thinking, chain)] == labels


@given(st.text("0123456789+=\n ", max_size=40), st.text("0123456789+=\n ", max_size=40))
def test_step_labels_are_ordered_and_never_recover(thinking: str, chain: str) -> None:
    """Ends increase, and after a wrong step all are wrong."""
    labels = step_labels(thinking, chain)
    ends = [end for end, _ in labels]
    assert ends == sorted(set(ends))
    assert all(0 < end <= len(thinking) for end in ends)
    rights = [right for _, right in labels]
    assert rights == sorted(rights, reverse=True)


def test_a_reply_is_labelled_in_the_template_of_serving() -> None:
    """Its end has the grader's label; with `steps`, so does the end of each step."""
    (whole,) = labelled_texts(TEMPLATE, [sampled("579")])
    assert whole.text == f"Q What is 123+456?\n{WORKED}\nA 579."
    assert whole.labels == ((len(whole.text), True),)
    (stepwise,) = labelled_texts(TEMPLATE, [sampled("578", thinking="3+6=9\n2+5=8")], steps=True)
    assert [(stepwise.text[:end].split("\n")[-1], right) for end, right in stepwise.labels] == [
        ("3+6=9", True),
        ("2+5=8", False),
        ("A 578.", False),
    ]


def test_steps_are_compared_with_the_chain_of_the_budget() -> None:
    """A low budget has a short chain."""
    (short,) = labelled_texts(TEMPLATE, [sampled("579", thinking=LOW, budget="low")], steps=True)
    assert [right for _, right in short.labels] == [True] * 4


def test_a_reply_without_an_answer_is_left_out() -> None:
    """Serving does not score such a reply either."""
    assert labelled_texts(TEMPLATE, [sampled(" ")]) == []


@given(st.text(max_size=20), st.integers())
def test_a_changed_answer_differs_in_one_digit(answer: str, seed: int) -> None:
    """There is none if the answer has no digit."""
    changed = change_digit(answer, random.Random(seed))
    if changed is None:
        assert not set(answer) & set("0123456789")
    else:
        assert len(changed) == len(answer)
        assert sum(x != y for x, y in zip(changed, answer, strict=True)) == 1


def test_hard_negatives_are_winning_mistakes_and_changed_answers() -> None:
    """The replies of the leading wrong group come again, and each correct reply gets a wrong digit."""
    (extended,) = with_hard_negatives([sampled("578", "578", "579", "1")], seed=0)
    added = extended.samples[4:]
    assert [reply.answer for reply in added[:2]] == ["578", "578"]
    assert len(added) == 3
    assert not any(reply.correct for reply in added)
    assert added[2].answer not in ("579", "578578")
    assert added[2].thinking == WORKED


def test_a_right_vote_adds_only_changed_answers() -> None:
    """Such a vote has no winning mistake."""
    (extended,) = with_hard_negatives([sampled("579", "579", "1")], seed=0)
    assert len(extended.samples) == 5
