"""The tiny model's problems."""

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from scorers.answers import verify
from training.data.arithmetic import additions, chain, errands


@given(st.integers(0, 99_999), st.integers(0, 99_999))
def test_a_column_chain_works_the_sum_out(a: int, b: int) -> None:
    """Written from the last column back, the columns' last digits are the sum's, the last column's whole."""
    totals = [int(step) for step in chain(a, b, "low").split()]
    written = "".join(str(total % 10) for total in reversed(totals[:-1]))
    assert int(f"{totals[-1]}{written}") == a + b


@given(st.integers(0, 99_999), st.integers(0, 99_999))
def test_the_long_chain_shows_every_column(a: int, b: int) -> None:
    """Each line is a true sum with at most a carry of one, and ends in what the short chain notes."""
    lines = chain(a, b, "high").split("\n")
    for line in lines:
        left, _, right = line.partition("=")
        assert sum(map(int, left.split("+"))) == int(right)
    assert [line.rpartition("=")[2] for line in lines] == chain(a, b, "low").split()


def test_rows_depend_on_the_seed_alone() -> None:
    """The same seed gives the same problems, another one others."""
    one, same, other = (list(islice(additions(seed), 20)) for seed in ("a", "a", "b"))
    assert one == same
    assert one != other
    assert all(row.gold == str(sum(map(int, row.id.split("+")))) for row in one)


def test_errands_are_general_rows_that_the_grader_can_check() -> None:
    """Their good reply verifies, and one with a word less does not."""
    for row in islice(errands("a"), 50):
        good = row.extra["answer"]
        assert row.general
        assert verify(good, row.gold or "") is True
        assert verify(good.rpartition(" ")[0], row.gold or "") is not True
