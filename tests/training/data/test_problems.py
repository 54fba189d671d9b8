"""The problems that an evaluation shows and asks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.problems import DataError, choose_problems, problems_digest
from training.types import Problem


@given(st.integers(1, 30), st.integers(0, 5), st.integers(0, 40), st.integers())
def test_examples_are_never_asked(total: int, shots: int, count: int, seed: int) -> None:
    """Examples and questions are disjoint, in the wanted numbers and order, and depend on the seed alone."""
    problems = [Problem(f"{i:02}", f"{i}?", str(i)) for i in range(total)]
    size = count or total - shots
    if not 0 < size <= total - shots:
        with pytest.raises(DataError, match=f"there are {total}"):
            choose_problems(problems, count, shots, seed)
        return
    examples, questions = choose_problems(problems, count, shots, seed)
    assert (len(examples), len(questions)) == (shots, size)
    assert not {problem.id for problem in examples} & {problem.id for problem in questions}
    assert [problem.id for problem in questions] == sorted({problem.id for problem in questions})
    assert choose_problems(problems, count, shots, seed) == (examples, questions)


def test_a_copy_of_an_example_is_not_asked() -> None:
    """A question that stands twice in the data is an example or is asked, not both."""
    problems = [Problem(str(i), "3 + 4?", "7") for i in range(3)]
    with pytest.raises(DataError, match="there are 3"):
        choose_problems(problems, 1, 1, seed=1)


def test_the_digest_depends_on_the_tolerance() -> None:
    """Replies marked within a tolerance are not mixed with those marked without."""
    exact, tolerant = Problem("1", "?", "3.14"), Problem("1", "?", "3.14", tolerance=0.01)
    assert len({problems_digest([problem], {"1": []}) for problem in (exact, tolerant)}) == 2
    assert problems_digest([tolerant], {"1": []}) == problems_digest(
        [Problem("1", "?", "3.14", tolerance=0.01)], {"1": []}
    )
