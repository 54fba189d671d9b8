"""The equality of answers."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.answers import equivalent, extract, verify
from scorers.types import Answer


def answer(text: str) -> Answer:
    """Return the answer that a box around `text` declares."""
    found = extract(rf"\boxed{{{text}}}")
    assert found is not None
    return found


SAME = [
    ("19", "19.0"),
    ("19", "38/2"),
    ("5 cm", "5"),
    (r"15\mbox{ cm}^2", "15"),
    (r"90^\circ", "90 degrees"),
    (r"\frac12", "0.5"),
    (r"\dfrac{1}{2}", "1/2"),
    ("1,234", "1234"),
    (r"11,\! 111,\! 100", "11111100"),
    (r"\$32,\!348", "32348"),
    (r"6.29\times10^6", "6290000"),
    ("6.29e6", "6,290,000"),
    (r"137 \frac{1}{2}", "137.5"),
    ("1 1/2", "3/2"),
    (r"2\frac{3}{4}\text{ hours}", "2.75"),
    (r"0.\overline{3}", "1/3"),
    ("-5 °C", "-5"),
    ("3 million", "3000000"),
    ("twelve", "12"),
    ("21st", "21"),
    ("20 km/h", "20"),
    ("25 miles per hour", "25"),
    ("12.5%", "0.125"),
    ("12.5%", "12.5"),
    (r"50\%", r"\frac12"),
    ("75 percent", "3/4"),
    ("x=5", "5"),
    ("f(x)=2x", "2x"),
    ("x = 2+3 = 5", "5"),
    ("Total = 45", "45"),
    ("2x+3y=6", "4x+6y-12=0"),
    ("y=2x+3", "2x-y+3=0"),
    ("x=1, y=2", "y=2, x=1"),
    ("x=1, y=2", "(1,2)"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"\frac{x^2-1}{x-1}", "x+1"),
    (r"\sin(2x)", r"2\sin x\cos x"),
    ("2^{n+1}", r"2\cdot 2^n"),
    (r"\frac{1}{\sqrt2}", r"\frac{\sqrt2}{2}"),
    (r"\sqrt{8}", r"2\sqrt2"),
    (r"\log_2 8", "3"),
    (r"e^{i\pi}", "-1"),
    (r"\sin 30^\circ", "1/2"),
    ("10!", "3628800"),
    (r"\binom{5}{2}", "10"),
    ("3+4i", "4i+3"),
    (r"|{-3}|", "3"),
    (r"1\pm\sqrt2", r"1+\sqrt2, 1-\sqrt2"),
    (r"\{1\pm\sqrt5,-2\}", r"\{-2,1+\sqrt5,1-\sqrt5\}"),
    ("1,-2", "-2,1"),
    (r"\{1,2\}", "1,2"),
    ("(1,2)", "1,2"),
    (r"10\text{ or }12", "10,12"),
    ("x=7 or x=-7", "7,-7"),
    ("x>2", r"(2,\infty)"),
    ("1 < x < 2", "(1,2)"),
    (r"x \in [-2,7]", r"-2 \le x \le 7"),
    ("2x+1<5", "x<2"),
    (r"(-\infty,2)\cup(3,\infty)", "x<2 or x>3"),
    (r"x\neq 3", r"(-\infty,3)\cup(3,\infty)"),
    (r"\mathbb{R}", "all real numbers"),
    (r"\infty", "infinity"),
    (r"\emptyset", "no solution"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)"),
    (r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", "[[1,2],[3,4]]"),
    ("March 4, 2024", "2024-03-04"),
    ("4th of March", "March 4"),
    ("4:30 p.m.", "16:30"),
    ("6:8", "3:4"),
    ("yes", "True"),
    ("(B) 12", "B"),
    ("(B) 12", "12"),
    (r"\text{(C)}", "C"),
    ("B", "b"),
    ("52_8", "52_{8}"),
    ("The Eiffel Tower.", "eiffel tower"),
    ("apples", "Apple"),
    (r"\text{east}", "East"),
    ("red, blue", "red,blue"),
    ("1:2", "1/2"),
    (r"\frac{\pi}{4}", "0.7854"),
    ("0.30000000000000004", "0.3"),
    ("16/3", "5.3333"),
]

DIFFERENT = [
    ("19", "20"),
    ("(1,234)", "1234"),
    ("x=5", "y=5"),
    ("(1,2)", "(2,1)"),
    ("[1,2]", "(1,2)"),
    ("0.33", "1/3"),
    ("0.333", "1/3"),
    ("3.14", r"\pi"),
    ("16/3", "5.33"),
    ("2x+3y=6", "2x+3y=7"),
    ("x^2", "x^3"),
    ("Yes", "No"),
    ("A", "B"),
    ("(A) 5", "(B) 5"),
    ("Monday", "Tuesday"),
    (r"-\infty", r"\infty"),
    (r"\sqrt{x^2}", "x"),
    ("6:30", "6:30 PM"),
    ("0", "none"),
    ("cat", "act"),
    ("100", "101"),
    ("1000000001", "1000000002"),
    ("52_8", "52_9"),
    # What math-verify calls equal:
    ("1/2004!", "1/2006!"),
    ("2^{-99}", "2^{-98}"),
    ("1-1/e", "1+1/e"),
    ("3", "3, 4, 5, 6"),
    (r"2^{-99}\pi", r"2^{-98}\pi"),
    (r"10^{-40}+\sqrt2", r"\sqrt2"),
    (r"\sqrt{10^{200}+1}", "10^{100}"),
    ("9^{9^9}", "9^{9^8}"),
    (r"e^{-200}", r"e^{-201}"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_one_answer_in_two_forms_is_one(a: str, b: str) -> None:
    """Equal answers are equal in both orders, whatever their form."""
    assert equivalent(answer(a), answer(b)) is True
    assert equivalent(answer(b), answer(a)) is True


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different_answers_are_unequal(a: str, b: str) -> None:
    """Near misses are unequal in both orders, however near."""
    assert equivalent(answer(a), answer(b)) is False
    assert equivalent(answer(b), answer(a)) is False


@pytest.mark.parametrize(
    ("a", "b"),
    [(r"\int_0^1 x\,dx", "1/2"), ("9^{9^9}", "9^{9^9}+1"), ("y=1/x", "xy=1"), (r"\overline{AB}", "AB")],
)
def test_an_undecidable_comparison_is_none(a: str, b: str) -> None:
    """Without the worker pool an answer that needs it stays undecided."""
    assert equivalent(answer(a), answer(b)) is None
    assert equivalent(answer(b), answer(a)) is None


def test_a_reply_without_an_answer_is_never_right() -> None:
    """A reply without an answer is False, not undecided."""
    assert verify("I don't know.", "5") is False


def test_gold_may_be_a_worked_solution() -> None:
    """The last declaration of the gold counts."""
    assert verify("A: 18", "She sells 16 - 7 = 9 eggs.\nShe makes 9 * 2 = 18.\n#### 18") is True
    assert verify("A: 18", "She has 16 eggs.\nA: 17") is False


NUMBERS = st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=1000)


@given(NUMBERS)
def test_a_number_has_one_key_in_every_form(value: Fraction) -> None:
    """A fraction has one key: plain or in LaTeX, in lowest terms or not, in a sum, with a unit."""
    top, bottom = value.numerator, value.denominator
    forms = [
        f"{top}/{bottom}",
        f"{3 * top}/{3 * bottom}",
        rf"\frac{{{top}}}{{{bottom}}}",
        rf"{top // bottom} + \frac{{{top % bottom}}}{{{bottom}}}",
        rf"$\dfrac{{{top}}}{{{bottom}}}$ \text{{ cm}}",
        f"  {top}/{bottom}.",
    ]
    assert {answer(form).key for form in forms} == {str(value)}


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=3))
def test_a_decimal_has_one_key_in_every_form(value: Decimal) -> None:
    """Trailing zeros, thousands marks, currency and exponents do not matter."""
    forms = [
        f"{value:f}",
        f"{value:f}00",
        f"{value:,f}",
        f"${value:f}",
        f"{value:e}",
        rf"{value:f} \text{{ m}}",
    ]
    assert {answer(form).key for form in forms} == {str(Fraction(value))}


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    """Return a small expression in x, y, integers, roots and powers."""
    if not depth or draw(st.booleans()):
        return draw(
            st.sampled_from(["x", "y", "2", "3", "1/2", r"\pi", "7", r"\sqrt{2}", r"\sqrt{12}", "e", "i"])
        )
    left, right = draw(expressions(depth - 1)), draw(expressions(depth - 1))
    form = draw(
        st.sampled_from(["({})+({})", "({})-({})", r"({})\cdot({})", r"\frac{{{}}}{{{}}}", "({})^2+{}"])
    )
    return form.format(left, right)


@given(expressions())
def test_keys_are_idempotent(text: str) -> None:
    """The key of a key is that key."""
    key = answer(text).key
    assert answer(str(key)).key == key


@pytest.mark.parametrize("text", [a for pair in SAME + DIFFERENT for a in pair])
def test_the_key_of_every_kind_is_idempotent(text: str) -> None:
    """Keys of text, dates, sets, intervals, matrices and equations are their own keys too."""
    key = answer(text).key
    assert answer(str(key)).key == key


@given(expressions(), expressions())
def test_equivalence_is_reflexive_and_symmetric(a: str, b: str) -> None:
    """An answer equals itself, and the order of two answers does not matter."""
    assert equivalent(answer(a), answer(a)) is True
    assert equivalent(answer(a), answer(b)) is equivalent(answer(b), answer(a))


@given(expressions(), expressions())
def test_a_sum_may_be_written_in_either_order(a: str, b: str) -> None:
    """Two orders of a sum are never unequal."""
    assert equivalent(answer(f"({a})+({b})"), answer(f"({b})+({a})")) is not False


@given(expressions())
def test_one_more_is_never_equal(text: str) -> None:
    """Adding 1 gives another answer; an undefined value stays undecided."""
    assert equivalent(answer(text), answer(f"({text})+1")) is not True
