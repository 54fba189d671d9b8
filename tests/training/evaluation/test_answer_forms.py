"""Strict extraction: an answer counts only in the form that the prompt asked for."""

import pytest

from scorers.answers import extract
from training.evaluation.answer_forms import ANSWER_FORMS, chat_messages
from training.evaluation.runner import grade_reply
from training.types import Problem

SEVEN = Problem("1", "3 + 4?", "7")


@pytest.mark.parametrize(
    ("form", "text", "answer"),
    [
        ("boxed", "So \\boxed{3}, no, \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("boxed", "It is \\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("boxed", "It is \\boxed{7", None),
        ("boxed", "The answer is 7.", None),
        ("phrase", "The answer is 6. No: the final answer is: 7.", "7"),
        ("phrase", "\\boxed{7}", None),
        ("phrase", "The answer is", None),
        ("tag", "<answer>6</answer> or <ANSWER> 7 </ANSWER>", "7"),
        ("tag", "<answer>7", None),
        ("any", "\\boxed{7} <answer>8</answer>", "7"),
        ("any", "the answer is 7", "7"),
        ("any", "7", None),
    ],
)
def test_each_form_extracts_its_own_answers(form: str, text: str, answer: str | None) -> None:
    """The last answer in the form counts; a missing or unfinished one is None."""
    assert ANSWER_FORMS[form].extract(text) == answer


@pytest.mark.parametrize("name", ANSWER_FORMS)
def test_an_example_is_right_strictly_and_leniently(name: str) -> None:
    """The examples that a model sees pass both gradings."""
    form = ANSWER_FORMS[name]
    shown = chat_messages(Problem("2", "?", "?"), form, [SEVEN])[1]["content"]
    assert form.extract(shown) == "7"
    answer = extract(shown)
    assert answer is not None
    assert answer.key == "7"


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("\\boxed{7}", True, True),
        ("\\boxed{7.0}", True, True),
        ("The answer is 7.", False, True),
        ("\\boxed{8}", False, False),
        ("", False, False),
    ],
)
async def test_strict_and_lenient_grading(text: str, strict: bool, lenient: bool) -> None:
    """Strict requires the form, lenient accepts what the gateway's grader finds; both compare values."""
    assert await grade_reply(text, SEVEN, ANSWER_FORMS["boxed"].extract) == (strict, lenient)


def test_the_chat_shows_examples_and_asks_for_the_form() -> None:
    """Each example is a turn with its answer; every question says how to answer."""
    chat = chat_messages(Problem("2", "1 + 1?", "2"), ANSWER_FORMS["tag"], [SEVEN])
    assert [turn["role"] for turn in chat] == ["user", "assistant", "user"]
    assert chat[1]["content"] == "<answer>7</answer>"
    assert chat[2]["content"].startswith("1 + 1?")
    assert "<answer>" in chat[2]["content"]
