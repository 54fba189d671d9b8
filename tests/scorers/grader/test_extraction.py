"""The answers that replies declare, and replies that declare none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.answers import extract


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (r"so \boxed{\frac{3}{4}}.", "3/4"),
        (r"$\boxed{\text{(E)}}$", "E"),
        (r"\boxed{\textbf{(A) } 20}", "A"),
        (r"\boxed{3} was wrong, it is really \boxed{5}", "5"),
        (r"roots \boxed{3}, \boxed{5} and \boxed{7}", "{3,5,7}"),
        ("<answer> 12 </answer>", "12"),
        ("answer>-5252</answer>", "-5252"),
        (r"<answer>\boxed{7}</answer>", "7"),
        ("2 + 2 = 4\n#### 1,234", "1234"),
        ("A: 26", "26"),
        ("The answer is 42.", "42"),
        ("**Answer:** $42$", "42"),
        ("Final Answer: The final answer is $17$. I hope it is correct.", "17"),
        ("### Final Answer\n\n5", "5"),
        ("The answer is 5 because 2+3=5.", "5"),
        ("The answer is Paris, the capital of France.", "paris"),
        ("I think it's B. The correct option is (C).", "C"),
        ("D. Because the others are wrong", "D"),
        ("The answer is 4:30 p.m.", "16:30"),
        (r"the answer is: \[ \frac{1}{6} \]", "1/6"),
        ("The answer is $3$ and $5$.", "{3,5}"),
    ],
)
def test_a_declared_answer_is_found(text: str, key: str) -> None:
    """Boxes, tags, hashes, phrases, labels and options each declare an answer."""
    answer = extract(text)
    assert answer is not None
    assert answer.key == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("19", "19"),
        ("Paris.", "paris"),
        ("x = 5", "x=5"),
        ("Yes.", "yes"),
        ("No, it doesn't follow.", "no"),
        ("(C)", "C"),
        ("First 3, then\n\n**42**", "42"),
        ("12 + 7 = 19", "19"),
        ("We get\n$$x = 5$$", "x=5"),
        ("So Janet makes $18 every day at the farmers' market.", "18"),
        ("The total number of legs is 187.", "187"),
        ("The area is $12\\pi$ square units.", "12*pi"),
        ('```json\n{"b": 1, "a": 2.0}\n```', '{"a":2,"b":1}'),
        ('Here it is:\n```json\n{"a": 1}\n```', '{"a":1}'),
    ],
)
def test_without_a_declaration_the_end_of_the_reply_counts(text: str, key: str) -> None:
    """A short reply, a lone last value or a value in the last sentence counts as the answer."""
    answer = extract(text)
    assert answer is not None
    assert answer.key == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        r"\boxed{}",
        "I don't know.",
        "I'm not sure about this one.",
        "Let me think about it.",
        "Hello! How can I help you today?",
        "The answer is not clear.",
        "Step 1: 5 + 3",
        "The capital of France is a city with 3 rivers and 12 bridges, I believe.",
        "Question\nA: 1\nB: 2\nI pick nothing",
        "She has 5 apples left.",
    ],
)
def test_prose_that_declares_nothing_is_no_vote(text: str) -> None:
    """Hedges, talk, empty boxes, steps and lists of options hold no answer."""
    assert extract(text) is None


def test_a_value_declared_behind_a_box_replaces_it() -> None:
    """The last declaration counts, but talk about an answer declares none."""
    corrected = extract(r"\boxed{5} is wrong. The answer is 7.")
    confirmed = extract(r"\boxed{5}" "\n\nThis confirms that the answer is correct.")
    assert corrected is not None
    assert corrected.key == "7"
    assert confirmed is not None
    assert confirmed.key == "5"


def test_a_box_far_above_the_end_is_still_found() -> None:
    """Only a window is searched, and it includes the last box."""
    answer = extract(r"\boxed{7}" + " and so on" * 10_000)
    assert answer is not None
    assert answer.key == "7"


@given(st.text(max_size=400))
def test_arbitrary_text_never_raises(text: str) -> None:
    """Whatever a model writes, extraction returns an answer with a hashable key or None."""
    answer = extract(text)
    assert answer is None or hash(answer.key) == hash(answer.key)


FRAGMENTS = [
    r"\boxed{",
    "}",
    "{",
    r"\frac",
    r"\sqrt",
    "1",
    "2.5",
    "x",
    "=",
    "<",
    ",",
    "(",
    "]",
    "[",
    ")",
    "answer is ",
    "<answer>",
    "</answer>",
    "#### ",
    "\n",
    "$",
    "**",
    r"\text{",
    r"\pm",
    "^",
    "_",
    "!",
    "%",
    "and ",
    r"\cup ",
    "or ",
    "|",
    ":",
    "A",
    "i",
    "e",
    "-",
    "/",
    "oo",
    r"\infty",
    '"',
    "'",
    "yes ",
    "the ",
    "cm",
    ".",
    "\\",
    "5 ",
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join))
def test_scrambled_mathematics_never_raises(text: str) -> None:
    """Pieces of answers in any order never raise."""
    answer = extract(text)
    assert answer is None or answer.raw
