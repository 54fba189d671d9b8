"""The problems that ask for a function: their own solutions pass, and stubs don't."""

from collections.abc import Iterator

import pytest

from tests.training.rewards.making import reply
from training.data.functions import coding_problems
from training.rewards.unit_tests import UnitTests
from training.sandbox import Sandbox, SandboxError, open_sandbox
from training.types import Problem

PROBLEMS = coding_problems()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox, where this machine can give one."""
    try:
        yield open_sandbox()
    except SandboxError as error:
        pytest.skip(str(error))


def test_there_are_thirty_different_problems() -> None:
    """Each has a name of its own, tests, and a task that names its function."""
    assert len({problem.id for problem in PROBLEMS}) == len({problem.question for problem in PROBLEMS}) == 30
    assert all(problem.reward == "tests" and problem.tests for problem in PROBLEMS)
    assert all(problem.id.removeprefix("functions/") in problem.question for problem in PROBLEMS)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.id)
def test_the_solution_passes_and_a_stub_does_not(sandbox: Sandbox, problem: Problem) -> None:
    """The known solution is correct; a function that returns its first argument is not."""
    name = problem.id.removeprefix("functions/")
    stub = f"def {name}(first, *rest):\n    return first\n"
    replies = [reply(f"```python\n{code}```") for code in (problem.extra["solution"], stub)]
    assert UnitTests(sandbox)(problem, replies) == [1.0, 0.0]
