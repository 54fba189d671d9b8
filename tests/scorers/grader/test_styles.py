"""Answers as models write them, each with its gold: correct ones and wrong ones."""

from __future__ import annotations

import pytest

from scorers.answers import extract, verify

RIGHT = [
    # how an answer is introduced
    ("So, x = 42.", "42"),
    ("Hence, 42.", "42"),
    ("So 12 is the final answer.", "12"),
    ("<answer>The value is 42</answer>", "42"),
    (r"So the answer is \boxed{\text{The value is } 42}.", "42"),
    ("The output is `[1, 2]`.", "[1, 2]"),
    ("It returns `[3, 1, 2]`.", "[3,1,2]"),
    ("The output is `True`.", "True"),
    ("The statement is false.", "False"),
    ("I choose option D.", "D"),
    ("He said the answer is 5, but he was wrong. The answer is 7.", "7"),
    ("The answer is 4<|im_end|>", "4"),
    ("The train leaves at 14:05.", "14:05"),
    ("The meeting is at 4:30 pm.", "4:30 p.m."),
    # numbers
    ("Answer: one hundred and five", "105"),
    ("Answer: two thirds", "2/3"),
    ("Answer: a dozen", "12"),
    ("Answer: 0xff", "255"),
    ("Answer: 6:8", "3:4"),
    ("Answer: 3 to 4", "3:4"),
    ("Answer: −7", "-7"),
    ("The answer is 1.234.", "1.234"),
    (r"\boxed{1.6\times10^{-19}\ \text{C}}", "1.6e-19"),
    (r"\boxed{-2\frac{1}{3}}", "-7/3"),
    (r"\boxed{9.8\ \frac{\text{m}}{\text{s}^2}}", "9.8"),
    # money, time, dates
    ("Answer: 3 hours and 20 minutes", "3 h 20 min"),
    ("Answer: 5 dollars and 30 cents", "$5.30"),
    ("Answer: $2 million", "2000000"),
    (r"\boxed{\$32{,}348}", "32348"),
    ("Answer: the 5th of January, 2024", "2024-01-05"),
    # several values
    ("(a) 3, (b) 5", "3, 5"),
    ("The roots are 3 and -5.", "x=3, x=-5"),
    (r"\boxed{(x,y)=(2,3)}", "(2,3)"),
    (r"\boxed{A=2,B=3}", "B=3, A=2"),
    (r"\boxed{\mathbb{R} \setminus \{0\}}", r"x \neq 0"),
    (r"\boxed{x<-1 \text{ or } x>1}", r"(-\infty,-1)\cup(1,\infty)"),
    # letters
    (r"\boxed{AB = 5}", "5"),
    (r"\boxed{\angle ABC = 60^\circ}", "60"),
    (r"\boxed{S_{\triangle ABC}=6}", "6"),
    ("The answer is (B) 24.", "24"),
    ("Correct Answer: (C) Paris", "Paris"),
]

WRONG = [
    ("The answer is not 5.", "5"),
    ("5 is not the answer.", "5"),
    ("Is 5 the answer?", "5"),
    ("I don't think 5 is the answer.", "5"),
    ("Let me think about step 1. We need to compute the cost at 5.", "5"),
    ("We looked at 3", "3"),
    ("The output of the function depends on n.", "n"),
    ("I would choose a different approach here.", "A"),
    ("There are two cases to consider:", "2"),
    ("This is the answer.", "this"),
    ("The answer is 1.234.", "1234"),
    ("The answer is (B) 24.", "C"),
    ("Answer: 0.333", "1/3"),
    ("Answer: one hundred and five", "100"),
    ("Answer: 3 hours and 20 minutes", "3 h 2 min"),
    ("Answer: 5 dollars and 3 cents", "$5.30"),
    ("Answer: 16:30", "4:30 AM"),
    ("(a) 3, (b) 5", "5, 3"),
    (r"\boxed{(x,y)=(2,3)}", "(3,2)"),
    (r"\boxed{2:3}", "3:2"),
    (r"\boxed{\mathbb{R} \setminus \{0\}}", r"x \neq 1"),
    ("<answer>The value is 42</answer>", "43"),
]


@pytest.mark.parametrize(("reply", "gold"), RIGHT)
def test_a_right_answer_in_its_own_words(reply: str, gold: str) -> None:
    """The answer is found and right without the workers."""
    assert verify(reply, gold) is True


@pytest.mark.parametrize(("reply", "gold"), WRONG)
def test_a_wrong_answer_in_its_own_words(reply: str, gold: str) -> None:
    """Another answer, or talk that declares none, is wrong and not undecided."""
    assert verify(reply, gold) is False


@pytest.mark.parametrize(
    "text",
    [
        "twenty hundred thousand and",
        "a",
        "hundred",
        "two thousand million",
        "five and six",
        "zero one",
        "and one",
    ],
)
def test_malformed_number_words_are_no_number(text: str) -> None:
    """Only well-formed number words are a number."""
    found = extract(rf"\boxed{{{text}}}")
    assert found is not None
    assert not str(found.key).replace("/", "").isdigit()
