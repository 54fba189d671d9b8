"""Function-writing problems with unit tests, for the reward "tests"."""

from __future__ import annotations

from training.data.function_problems import PROBLEMS
from training.types import Problem

__all__ = ["function_rows"]

_QUESTION = "{task} Write it in Python, in one code block, with the standard library alone."


def function_rows() -> list[Problem]:
    """One row for each problem, in an order that doesn't change."""
    return [
        Problem(
            f"functions/{each.name}",
            _QUESTION.format(task=each.task),
            reward="tests",
            tests=each.tests,
            source="functions",
            extra={"solution": each.solution},
        )
        for each in PROBLEMS
    ]
