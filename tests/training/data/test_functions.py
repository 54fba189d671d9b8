"""The function-writing problems are right: their own solutions pass, and little else does."""

from collections.abc import Iterator

import pytest

from tests.training.rewards.making import reply
from training.data.functions import coding_problems
from training.rewards.unit_tests import UnitTests
from training.sandbox import Sandbox, SandboxError, open_sandbox
from training.types import Problem

ROWS = coding_problems()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox, where this machine can give one."""
    try:
        yield open_sandbox()
    except SandboxError as error:
        pytest.skip(str(error))


def test_there_are_thirty_different_ones() -> None:
    """Each has a name of its own, tests, and a task that names its function."""
    assert len({row.id for row in ROWS}) == len({row.question for row in ROWS}) == 30
    assert all(row.reward == "tests" and row.tests for row in ROWS)
    assert all(row.id.removeprefix("functions/") in row.question for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_solution_passes_and_a_stub_does_not(sandbox: Sandbox, row: Problem) -> None:
    """The known solution is right; a function that returns what it was given is not."""
    name = row.id.removeprefix("functions/")
    stub = f"def {name}(first, *rest):\n    return first\n"
    replies = [reply(f"```python\n{code}```") for code in (row.extra["solution"], stub)]
    assert UnitTests(sandbox)(row, replies) == [1.0, 0.0]
