"""Problems that ask for one function each, with unit tests, for the reward "tests"."""

from __future__ import annotations

from training.data.function_problems import PROBLEMS
from training.types import Problem

__all__ = ["coding_problems"]

_QUESTION = "{task} Write it in Python, in one code block, with the standard library alone."


def coding_problems() -> list[Problem]:
    """Return the problems of `training.data.function_problems`, always in the same order."""
    return [
        Problem(
            f"functions/{function.name}",
            _QUESTION.format(task=function.task),
            reward="tests",
            tests=function.tests,
            source="functions",
            extra={"solution": function.solution},
        )
        for function in PROBLEMS
    ]
