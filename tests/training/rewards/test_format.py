"""The format reward: well-formed replies, and replies that only look so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.thinking import Markup, split_thinking
from tests.training.rewards.making import SUM, reply
from training.rewards.format import Format, answers_at_once, thinks_once
from training.types import Problem

OPENED = Markup(opened=True)
WRAPPED = Markup(answer=("<answer>", "</answer>"))
CHAT = Problem("2", "Say hello.", reward="rubric", general=True)


@pytest.mark.parametrize(
    ("text", "well_formed"),
    [
        ("<think>six sevens</think>42", True),
        ("\n<think>\nsix sevens\n</think>\n\n42\n", True),
        ("<think></think>42", False),
        ("<think>\n \n</think>42", False),
        ("<think>...</think>42", False),
        ("<think>six sevens</think>", False),
        ("<think>six sevens</think>\n\n", False),
        ("<think>six sevens</think>42</think>", False),
        ("<think>six <think>sevens</think>42", False),
        ("<think>six</think><think>sevens</think>42", False),
        ("<think>six</think>42<think>sevens</think>", False),
        ("So: <think>six sevens</think>42", False),
        ("six sevens</think>42", False),
        ("<think>six sevens 42", False),
        ("42", False),
        ("", False),
    ],
)
def test_one_block_then_an_answer(text: str, well_formed: bool) -> None:
    """Exactly one block begins the reply, has a word in it and is closed once; an answer follows."""
    assert Format()(SUM, [reply(text, budget="high")]) == [float(well_formed)]


@pytest.mark.parametrize(
    ("text", "well_formed"),
    [("six sevens</think>42", True), ("<think>six sevens</think>42", False), ("</think>42", False)],
)
def test_the_template_may_open_the_block(text: str, well_formed: bool) -> None:
    """Where the template wrote the opening tag, the model must not write it again."""
    assert thinks_once(text, OPENED) is well_formed


@pytest.mark.parametrize(
    ("answer", "well_formed"),
    [
        ("<answer>42</answer>", True),
        ("\n<answer> 42 </answer>\n", True),
        ("42", False),
        ("<answer></answer>", False),
        ("<answer>4<answer>2</answer>", False),
        ("<answer>42</answer></answer>", False),
        ("<answer>42</answer> and more", False),
    ],
)
def test_the_answer_s_own_tags(answer: str, well_formed: bool) -> None:
    """A family that wraps its answers must wrap the whole answer, once."""
    assert thinks_once(f"<think>six sevens</think>{answer}", WRAPPED) is well_formed


@pytest.mark.parametrize(
    ("text", "markup", "well_formed"),
    [
        ("42", Markup(), True),
        ("<think>six sevens</think>42", Markup(), False),
        ("<think></think>42", Markup(), False),
        ("42</think>", Markup(), False),
        (" ", Markup(), False),
        ("</think>42", OPENED, True),
        ("42", OPENED, True),
        ("six</think>42", OPENED, False),
    ],
)
def test_off_means_no_block(text: str, markup: Markup, well_formed: bool) -> None:
    """Without thinking, a reply is its answer; it may only close a block that the template opened."""
    assert Format(markup)(SUM, [reply(text, budget="off", markup=markup)]) == [float(well_formed)]


def test_a_general_problem_allows_both_shapes() -> None:
    """Without a budget its replies may think or not, but may not have half a block."""
    texts = ["Hello.", "<think>a greeting</think>Hello.", "<think></think>Hello.", "Hello.</think>"]
    assert Format()(CHAT, [reply(text) for text in texts]) == [1.0, 1.0, 0.0, 0.0]
    assert Format()(SUM, [reply("42")]) == [0.0]


def test_a_truncated_reply_is_not_well_formed() -> None:
    """Nobody knows how a reply that hit the limit would go on."""
    assert Format()(SUM, [reply("<think>six sevens</think>4", finished=False)]) == [0.0]


PARTS = st.lists(st.sampled_from(["<think>", "</think>", "six ", "\n", "42", "`", "<thi"]), max_size=8)


@given(PARTS)
def test_serving_splits_a_well_formed_reply_as_it_looks(parts: list[str]) -> None:
    """Serving's own splitter finds thinking and an answer in it, and no tag in either."""
    text = "".join(parts)
    thinking, answer = split_thinking(text)
    if thinks_once(text, Markup()):
        assert thinking.strip()
        assert answer.strip()
        assert "think>" not in thinking + answer
        assert not answers_at_once(text, Markup())
    elif answers_at_once(text, Markup()):
        assert (thinking, answer.strip()) == ("", text.strip())
