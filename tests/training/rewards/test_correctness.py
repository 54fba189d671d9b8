"""The verifiable reward."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.answers import verify
from tests.training.rewards.making import SUM, reply
from training.rewards.correctness import Correct
from training.types import Completion, Problem

completions = st.builds(
    lambda text, thinks, finished: reply(f"<think>{text}</think>" * thinks + text, finished=finished),
    st.sampled_from(
        ["The answer is 42.", "\\boxed{42.0}", "84/2", "41", "\\boxed{41}", "\\boxed{\\int_0^1 x dx}", ""]
    )
    | st.text(max_size=20),
    st.booleans(),
    st.booleans(),
)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>6*7</think>The answer is 42.", 1.0),
        ("<think>6*7</think>\\boxed{42.0}", 1.0),
        ("<think>42</think>The answer is 41.", 0.0),
        ("<think>The answer is 42.</think>", 0.0),
        ("<think>The answer is 42.", 0.0),
        ("", 0.0),
    ],
)
def test_only_the_answer_counts(text: str, reward: float) -> None:
    """1.0 for the gold answer outside the thinking, else 0.0."""
    assert Correct()(SUM, [reply(text)]) == [reward]


def test_a_truncated_reply_gets_nothing() -> None:
    """A reply that hit the limit is not correct, even where it contains the correct number."""
    assert Correct()(SUM, [reply("The answer is 42", finished=False)]) == [0.0]


def test_an_undecided_answer_gets_nothing() -> None:
    """Where the grader can't decide, the reward is 0.0 and not None: doubt must not pay, nor be left out."""
    problem = Problem("1", "Integrate.", gold="\\frac12")
    doubtful = "\\boxed{\\int_0^1 x dx}"
    assert verify(doubtful, problem.gold or "") is None
    assert Correct()(problem, [reply(doubtful)]) == [0.0]


def test_a_problem_may_state_a_tolerance() -> None:
    """Then a number within it is correct; other problems keep to the exact rules."""
    replies = [reply("The answer is 3.353."), reply("The answer is 3.36.")]
    assert Correct()(Problem("1", "?", gold="3.35398", tolerance=0.001), replies) == [1.0, 0.0]
    assert Correct()(Problem("1", "?", gold="3.35398"), replies) == [0.0, 0.0]


def test_without_a_gold_answer_it_does_not_apply() -> None:
    """A problem that can't be verified gives no reward."""
    assert Correct()(Problem("1", "Say hello."), [reply("Hello."), reply("Hi.")]) == [None, None]


@given(st.lists(completions, max_size=6))
def test_each_reply_gets_all_or_nothing_by_itself(replies: list[Completion]) -> None:
    """1.0 or 0.0, 0.0 for a truncated reply; no reward depends on other replies or their order."""
    rewards = Correct()(SUM, replies)
    assert set(rewards) <= {0.0, 1.0}
    assert all(value == 0.0 for sent, value in zip(replies, rewards, strict=True) if not sent.finished)
    assert rewards == [value for sent in replies for value in Correct()(SUM, [sent])]


@given(st.integers(-(10**6), 10**6), st.integers(-3, 3))
def test_a_number_is_right_where_it_is_the_gold(gold: int, off: int) -> None:
    """It is in prose or in a box, and no other number is."""
    problem = Problem("1", "?", gold=str(gold))
    replies = [reply(f"The answer is {gold + off}."), reply(f"So \\boxed{{{gold + off}}}")]
    assert Correct()(problem, replies) == [float(off == 0)] * 2


@given(st.lists(completions, max_size=6))
def test_thinking_alone_changes_nothing(replies: list[Completion]) -> None:
    """The thinking before the answer, correct or wrong, is not judged."""
    thinking = [replace(sent, thinking="The answer is 42.") for sent in replies]
    assert Correct()(SUM, thinking) == Correct()(SUM, replies)
