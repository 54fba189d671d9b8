"""Ordinary replies in many styles, and what their answers say."""

# ruff: noqa: SIM905 - word lists read better as words
from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scorers.answers import extract, verify
from scorers.grader.number_words import compound_amount, words_to_digits
from scorers.grader.parsing import canonical_key

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()

RIGHT = [
    ("It costs **$45**.", "45"),
    ("It costs $5 per kilo, so 3 kilos cost $15.", "15"),
    ("So the final price is $20 - $5 = $15.", "15"),
    ("So, x = 42.", "42"),
    ("Hence, 42.", "42"),
    ("5 is the answer.", "5"),
    ("This gives the answer 5.", "5"),
    ("giving us a final answer of $5.", "5"),
    ("Answer - 5", "5"),
    ("So the train needs 2.5 hours.", "2.5"),
    ("The ratio is 3:4.", "3:4"),
    ("The ratio of boys to girls is 3 to 4.", "3:4"),
    ("The meeting is at 4:30 pm.", "16:30"),
    ("The shop opens at 9:00 AM.", "9 AM"),
    ("The party is on March 4.", "March 4"),
    ("The statement is false.", "False"),
    ("I would pick (c)", "C"),
    ("Option D", "D"),
    ("The output is `[1, 2]`.", "[1, 2]"),
    ("The output of the program is `hello`.", "hello"),
    ('The answer is "2."', "2"),
    ("<answer>The value is 42</answer>", "42"),
    (r"\boxed{\text{The answer is } 5}", "5"),
    (r"\boxed{\text{Total: } 5}", "5"),
    ("(a) 3, (b) 5", "(a) 3 and (b) 5"),
    (r"\boxed{\text{(a) } 3 \text{ and (b) } 5}", "(3, 5)"),
    ("Answer: one hundred and five", "105"),
    ("Answer: three thousand four hundred and twelve", "3412"),
    ("Answer: a dozen", "12"),
    ("Answer: two thirds", "2/3"),
    ("Answer: three-quarters", "75%"),
    ("Answer: 3 hours and 20 minutes", "3 hours 20 minutes"),
    ("Answer: 1h 30min", "1 hour, 30 minutes"),
    ("Answer: 5 feet 6 inches", "5 ft 6 in"),
    ("Answer: 2 dollars and 50 cents", "$2.50"),
    ("Answer: 0xff", "255"),
    ("Answer: 0b101", "5"),
    (r"\boxed{9.8\ \frac{\text{m}}{\text{s}^2}}", "9.8"),
    (r"\boxed{AB = 5}", "5"),
    (r"\boxed{\mathbb{R} \setminus \{0\}}", r"x \neq 0"),
    (r"\boxed{\mathbb{R}\setminus\{-1,1\}}", r"(-\infty,-1)\cup(-1,1)\cup(1,\infty)"),
]
WRONG = [
    ("The ratio is 3:4.", "4"),
    ("Answer: Seven Samurai", "7"),
    ("Answer: five five", "10"),
    ("Answer: 3 hours and 20 minutes", "{3, 20}"),
    ("Answer: 5 ft 6 in", "5 ft 7 in"),
    ("(a) 3, (b) 5", "(a) 3, (b) 6"),
    ("Answer: 0xff", "0"),
    (r"\boxed{AB = 5}", "CD = 5"),
    (r"\boxed{\mathbb{R}\setminus\{1\}}", r"x \neq 2"),
    ("<answer>the quick brown fox</answer>", "fox"),
]
SILENT = [
    "Thus we are done.",
    "So I am not sure.",
    "**Step 3** is done.",
    "There were **3** cats and **4** dogs.",
    "This is the answer.",
]


@pytest.mark.parametrize(("reply", "gold"), RIGHT)
def test_a_right_answer_is_found_and_known(reply: str, gold: str) -> None:
    """Whatever the style, without workers; and the key of what was found is its own key."""
    assert verify(reply, gold) is True
    answer = extract(reply)
    assert answer is not None
    assert canonical_key(str(answer.key)) == answer.key


@pytest.mark.parametrize(("reply", "gold"), WRONG)
def test_a_wrong_answer_is_told(reply: str, gold: str) -> None:
    """What only looks alike is not the same."""
    assert verify(reply, gold) is False


@pytest.mark.parametrize("reply", SILENT)
def test_talk_declares_nothing(reply: str) -> None:
    """Numbers and bold words in talk are no answers."""
    assert extract(reply) is None


def test_an_unsolved_inequality_is_no_proof() -> None:
    """|x - 3| < 2 isn't solved here, so it is not said to differ from its solutions."""
    assert verify(r"\boxed{|x-3|<2}", "(1, 5)") is None


def spell(number: int) -> str:
    """A whole number under a million in words, as English writes it."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        ones = f"-{_ONES[number % 10]}" if number % 10 else ""
        return _TENS[number // 10 - 2] + ones
    scale, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    head, rest = divmod(number, scale)
    joint = " and " if name == "hundred" else " "
    return f"{spell(head)} {name}" + (f"{joint}{spell(rest)}" if rest else "")


@given(st.integers(0, 999_999))
def test_numbers_in_words_are_numbers(number: int) -> None:
    """With and without "and", hyphens and capitals."""
    words = spell(number)
    for text in (words, words.replace(" and ", " "), words.replace("-", " ").capitalize()):
        assert words_to_digits(text) == str(number)


@given(st.lists(st.sampled_from([*_ONES, *_TENS, "hundred", "thousand", "and", "half"]), max_size=6))
def test_words_that_are_no_number_are_none(words: list[str]) -> None:
    """Whatever is read as a whole number is one that these words spell, "and" aside.

    But for ten hundred and more, which people say and `spell` doesn't.
    """
    read = words_to_digits(" ".join(words))
    heads = [words[max(0, place - 2) : place] for place, word in enumerate(words) if word == "hundred"]
    assume(not any(word in (*_ONES[10:], *_TENS) for head in heads for word in head))
    if read is not None and read.isdecimal():
        spelt = spell(int(read)).replace("-", " ").replace(" and ", " ").split()
        assert spelt == [word for word in words if word != "and"]


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_amounts_of_several_units_have_one_form(hours: int, minutes: int, seconds: int) -> None:
    """Long and short units are the same, and the form is its own form."""
    long = compound_amount(f"{hours} hours, {minutes} minutes and {seconds} seconds")
    assert (
        long == compound_amount(f"{hours}h {minutes}m {seconds}s") == f"{hours} h {minutes} min {seconds} s"
    )
    assert compound_amount(str(long)) == long
    assert compound_amount(f"{minutes} minutes {hours} hours") is None
