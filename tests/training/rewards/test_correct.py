"""The verifiable reward."""

import pytest

from scorers.answers import verify
from tests.training.rewards.making import SUM, reply
from training.rewards.correct import Correct
from training.types import Row


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("<think>6*7</think>The answer is 42.", 1.0),
        ("<think>6*7</think>\\boxed{42.0}", 1.0),
        ("<think>42</think>The answer is 41.", 0.0),
        ("<think>The answer is 42.</think>", 0.0),
        ("<think>The answer is 42.", 0.0),
        ("", 0.0),
    ],
)
def test_only_the_answer_counts(text: str, worth: float) -> None:
    """1.0 for the gold answer outside the thinking, else 0.0."""
    assert Correct()(SUM, [reply(text)]) == [worth]


def test_a_cut_reply_earns_nothing() -> None:
    """A reply that hit the limit is not right, even where the right number stands in it."""
    assert Correct()(SUM, [reply("The answer is 42", finished=False)]) == [0.0]


def test_undecided_earns_nothing() -> None:
    """Where the grader can't decide the reward is 0.0, not None: doubt must not pay, nor be left out."""
    row = Row("1", "Integrate.", gold="\\frac12")
    doubtful = "\\boxed{\\int_0^1 x dx}"
    assert verify(doubtful, row.gold or "") is None
    assert Correct()(row, [reply(doubtful)]) == [0.0]


def test_a_row_may_state_a_tolerance() -> None:
    """Then a number as near as that is right; other rows keep to the exact rules."""
    replies = [reply("The answer is 3.353."), reply("The answer is 3.36.")]
    assert Correct()(Row("1", "?", gold="3.35398", tolerance=0.001), replies) == [1.0, 0.0]
    assert Correct()(Row("1", "?", gold="3.35398"), replies) == [0.0, 0.0]


def test_without_a_gold_answer_it_does_not_apply() -> None:
    """A row that can't be verified has no verdict."""
    assert Correct()(Row("1", "Say hello."), [reply("Hello."), reply("Hi.")]) == [None, None]
