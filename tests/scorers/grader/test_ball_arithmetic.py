"""Ball arithmetic: every value lies within its bound, and no input costs much."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from fractions import Fraction
from math import comb, factorial

import flint
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.grader.ball_arithmetic import Undefined, evaluate
from scorers.grader.expressions import parse_expression
from scorers.grader.numeric import approximate, same_value

MAX_STEPS = 8
NUMBERS = st.fractions(min_value=-50, max_value=50, max_denominator=1000)
POSITIVE = st.fractions(min_value=Fraction(1, 1000), max_value=50, max_denominator=1000)

IDENTITIES = [
    (r"\sin(x)^2+\cos(x)^2", "1"),
    (r"\sin(2x)", r"2\sin(x)\cos(x)"),
    (r"\cosh(x)^2-\sinh(x)^2", "1"),
    (r"\tanh(x)", r"\frac{\sinh(x)}{\cosh(x)}"),
    (r"e^{x}\cdot e^{-x}", "1"),
    (r"e^{ix}", r"\cos(x)+i\sin(x)"),
    (r"\tan(\arctan(x))", "x"),
    (r"|x|", r"\sqrt{x^2}"),
    (r"(1+ix)(1-ix)", "1+x^2"),
    (r"\frac{1}{1+ix}", r"\frac{1-ix}{1+x^2}"),
    (r"|1+ix|", r"\sqrt{1+x^2}"),
    (r"\lceil x \rceil", r"-\lfloor -x \rfloor"),
]
POSITIVE_IDENTITIES = [
    (r"\ln(x^3)", r"3\ln(x)"),
    (r"e^{\ln(x)}", "x"),
    (r"x^{1/3}\cdot x^{2/3}", "x"),
    (r"(-x)^{1/3}", r"-x^{1/3}"),
    (r"\sqrt{-x}", r"i\sqrt{x}"),
    (r"x^{100}", r"(x^{50})^{2}"),
    (r"\arctan(x)+\arctan(1/x)", r"\frac{\pi}{2}"),
]
CONSTANTS = [
    (r"\sin(\pi)", "0"),
    (r"\cos(\pi/3)-1/2", "0"),
    (r"\tan(\pi/4)", "1"),
    (r"\cot(\pi/4)+\sec(0)+\csc(\pi/2)", "3"),
    (r"\arcsin(1)", r"\pi/2"),
    (r"\arccos(-1)", r"\pi"),
    (r"e^{i\pi}", "-1"),
    (r"\sqrt{3+2\sqrt2}-1-\sqrt2", "0"),
    (r"\ln(2)+\ln(3)-\ln(6)", "0"),
    (r"(2+3)!", "120"),
    (r"\lfloor 2+\pi \rfloor", "5"),
    (r"10^{30}\sin(1)^2+10^{30}\cos(1)^2-10^{30}", "0"),
]
UNDEFINED = [
    "1/0",
    r"\frac{1}{\ln(1)}",
    "0^{-3}",
    "0^{-300}",
    r"\ln(0)",
    r"\ln(-1)",
    r"\arcsin(2)",
    r"(-2)^{1/4}",
    r"(-2)^{\pi}",
    r"\sqrt{i}",
    r"\ln(i)",
    r"\lfloor i \rfloor",
    r"i^{1000}",
    r"\tan(\pi/2)",
    r"\lfloor\sin(\pi)\rfloor",
    r"\arctan(\frac{1}{\sin(\pi)})",
    r"(1/2)!",
    "(-1)!",
    "5001!",
    "oo",
    "x",
]
HOSTILE = [
    "9^{9^{9^9}}",
    "9^{9^{9^{9^{9}}}}",
    "2^" * 35 + "2",
    "(" * 30 + "10" + ")^{64}" * 30,
    "(" * 30 + "e" + ")^{999}" * 30,
    r"\exp(" * 30 + "9" + ")" * 30,
    r"\sin(10^{4000})",
    r"e^{i\cdot 10^{4000}}",
    r"\tan(10^{9^{9^9}})",
    r"\lfloor 9^{9^9} \rfloor",
    r"\lceil e^{e^{e^{9}}} \rceil",
    "(9^{9^9})!",
    r"5000!\cdot4999!\cdot4998!\cdot4997!",
    r"\binom{5000}{2500}^{1000}",
    "1e4000^{999999999999}",
    "1e-4000^{999999999999}+1",
    "+".join(["1e4000"] * 80),
    r"\cdot".join(["1e-4000"] * 80),
    r"\sqrt[999999999989]{2}",
    r"9^{-9^{9^9}}",
]


@pytest.mark.parametrize(("a", "b"), IDENTITIES)
@given(x=NUMBERS)
def test_both_sides_of_an_identity_overlap(a: str, b: str, x: Fraction) -> None:
    """Both balls hold the one value, and both are narrow."""
    for digits in (50, 300):
        left, right = (evaluate(parse_expression(side), digits, {"x": x}, MAX_STEPS) for side in (a, b))
        assert left.overlaps(right)
        assert max(left.rad(), right.rad()) < flint.arb(10) ** (60 - digits) * (1 + left.abs_upper())


@pytest.mark.parametrize(("a", "b"), POSITIVE_IDENTITIES)
@given(x=POSITIVE)
def test_both_sides_of_an_identity_of_positive_numbers_overlap(a: str, b: str, x: Fraction) -> None:
    """Roots and logarithms hold to their laws, and an odd root of a negative number is real."""
    left, right = (evaluate(parse_expression(side), 50, {"x": x}, MAX_STEPS) for side in (a, b))
    assert left.overlaps(right)
    with flint.ctx.workdps(50):
        assert not left.overlaps(right * (1 + flint.arb("1e-40")))


@given(NUMBERS, NUMBERS, st.sampled_from(["x+y", "x-y", r"x\cdot y", "x^3+y^2", "(x+y)^2-x"]))
def test_a_rational_value_lies_within_its_ball(x: Fraction, y: Fraction, text: str) -> None:
    """Exact arithmetic on fractions and ball arithmetic agree, and the value is real."""
    exact = {"x+y": x + y, "x-y": x - y, "x^3+y^2": x**3 + y**2, "(x+y)^2-x": (x + y) ** 2 - x}
    value = exact.get(text, x * y)
    ball = evaluate(parse_expression(text), 50, {"x": x, "y": y}, MAX_STEPS)
    assert ball.imag.is_zero()
    with flint.ctx.workdps(80):
        assert (ball * value.denominator).contains(value.numerator)
        assert ball.rad() < flint.arb("1e-40")


@given(st.integers(0, 300), st.integers(0, 300))
def test_counts_are_those_of_whole_numbers(n: int, k: int) -> None:
    """Factorials and binomial coefficients are bounded as any other value."""
    assert evaluate(parse_expression(f"{n}!"), 50, {}, MAX_STEPS).contains(factorial(n))
    assert evaluate(parse_expression(rf"\binom{{{n}}}{{{k}}}"), 50, {}, MAX_STEPS).contains(comb(n, k))


@pytest.mark.parametrize(("a", "b"), CONSTANTS)
def test_equal_constants_are_equal_and_a_near_one_is_not(a: str, b: str) -> None:
    """This holds where the value is 0 too, whose ball is never exact."""
    assert same_value(parse_expression(a), parse_expression(b)) is True
    assert same_value(parse_expression(a), parse_expression(f"{b}+10^{{-200}}")) is False


@pytest.mark.parametrize("text", UNDEFINED)
def test_what_has_no_value_is_undefined(text: str) -> None:
    """Poles, logarithms and roots outside the reals, counts of no whole number, unknown names."""
    with pytest.raises(Undefined):
        evaluate(parse_expression(text), 50, {}, MAX_STEPS)


def test_costly_steps_are_limited() -> None:
    """Of at most 8 steps eight roots are within, the ninth is not; sums, products, small powers are free."""
    tree = parse_expression("+".join([r"\sqrt{2}"] * 8) + "+3^{64}")
    assert evaluate(tree, 50, {}, 8).imag.is_zero()
    with pytest.raises(Undefined):
        evaluate(tree, 50, {}, 7)


@pytest.mark.parametrize("power", [150, 160, 200])
@pytest.mark.parametrize("form", ["({})^2", "({})^4", r"({})\cdot 10^{{-300}}", r"({})^2\cdot 10^{{-200}}"])
def test_a_small_difference_of_huge_numbers_is_not_called_zero(power: int, form: str) -> None:
    """300 digits can't show it, so it is proved or undecided, whatever hides its error."""
    difference = rf"\sqrt{{10^{{{2 * power}}}+1}}-10^{{{power}}}"
    assert same_value(parse_expression(form.format(difference)), parse_expression("0")) is not True


@pytest.mark.parametrize(
    ("text", "value"),
    [(r"\sqrt{2}\cdot\sqrt{2}", 2), (r"\cos(\pi/3)/5", Fraction(1, 10)), (r"\sin(\pi)+3", 3), ("0", 0)],
)
def test_an_approximation_of_a_short_decimal_is_that_decimal(text: str, value: Fraction) -> None:
    """It is rounded to 40 decimal digits, so no bound of a tolerance is missed by the 51st."""
    assert approximate(parse_expression(text)) == value


@pytest.mark.parametrize("text", ["i", r"\sin(\pi)", "1e401", "1e-401", "9^{9^9}", "1/0"])
def test_what_40_digits_cannot_state_has_no_approximation(text: str) -> None:
    """Complex, uncertain of its first digit, too large or too small, or undefined."""
    assert approximate(parse_expression(text)) is None


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_numbers_cost_little(text: str) -> None:
    """A tower has a ball or none, in milliseconds, and no huge number is written out."""
    tree = parse_expression(text)
    start = time.thread_time()
    same_value(tree, parse_expression(r"\sqrt{3}+1"))
    approximate(tree)
    assert time.thread_time() - start < 0.25


def test_hostile_numbers_take_little_memory() -> None:
    """All of them together stay within 64 MiB of what the imports take."""
    code = (
        "import sys, resource\n"
        "from scorers.grader.expressions import parse_expression\n"
        "from scorers.grader.numeric import approximate, same_value\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for text in sys.argv[1:]:\n"
        "    tree = parse_expression(text)\n"
        "    same_value(tree, parse_expression('3^{1/2}+1')); approximate(tree)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *HOSTILE], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 64 << 20


def test_threads_do_not_disturb_each_other() -> None:
    """Evaluations at 50 and 300 digits at once give the balls that they give alone."""
    tree = parse_expression(r"\sqrt{2}+\sin(1)\cdot\ln(7)-e^{1/3}")
    alone = {digits: evaluate(tree, digits, {}, MAX_STEPS) for digits in (50, 300)}
    wrong: list[int] = []
    start = threading.Barrier(8)

    def work(digits: int) -> None:
        start.wait()
        for _ in range(300):
            ball = evaluate(tree, digits, {}, MAX_STEPS)
            if ball.real.rad() != alone[digits].real.rad() or ball.real.mid() != alone[digits].real.mid():
                wrong.append(digits)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(digits,)) for digits in (50, 300) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_the_precision_of_the_process_is_given_back() -> None:
    """Another user of FLINT keeps its own precision, also where an evaluation fails."""
    with flint.ctx.workprec(77):
        evaluate(parse_expression(r"\sqrt{2}"), 300, {}, MAX_STEPS)
        with pytest.raises(Undefined):
            evaluate(parse_expression("1/0"), 300, {}, MAX_STEPS)
        assert flint.ctx.prec == 77
