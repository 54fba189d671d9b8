"""The tiny model's problems."""

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from scorers.answers import verify
from training.data.arithmetic import additions, chain, errands


@given(st.integers(0, 99_999), st.integers(0, 99_999))
def test_a_column_chain_works_the_sum_out(a: int, b: int) -> None:
    """The columns' last digits, from the last column back, are the sum; the last column counts in full."""
    totals = [int(step) for step in chain(a, b, "low").split()]
    written = "".join(str(total % 10) for total in reversed(totals[:-1]))
    assert int(f"{totals[-1]}{written}") == a + b


@given(st.integers(0, 99_999), st.integers(0, 99_999))
def test_the_long_chain_shows_every_column(a: int, b: int) -> None:
    """Each line is a true sum, and its result is what the short chain notes."""
    lines = chain(a, b, "high").split("\n")
    for line in lines:
        left, _, right = line.partition("=")
        assert sum(map(int, left.split("+"))) == int(right)
    assert [line.rpartition("=")[2] for line in lines] == chain(a, b, "low").split()


def test_problems_depend_on_the_seed_alone() -> None:
    """The same seed gives the same problems, another seed gives others."""
    one, same, other = (list(islice(additions(seed), 20)) for seed in ("a", "a", "b"))
    assert one == same
    assert one != other
    assert all(problem.gold == str(sum(map(int, problem.id.split("+")))) for problem in one)


def test_errands_are_general_problems_that_the_grader_can_check() -> None:
    """Their good reply verifies, and one with a word less does not."""
    for problem in islice(errands("a"), 50):
        good = problem.extra["answer"]
        assert problem.general
        assert verify(good, problem.gold or "") is True
        assert verify(good.rpartition(" ")[0], problem.gold or "") is not True
