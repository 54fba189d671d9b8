"""The reward for instructions whose constraints a program can check."""

from __future__ import annotations

from collections.abc import Sequence

from training.data.constraints import is_satisfied
from training.types import Completion, Problem

__all__ = ["checks"]


def checks(problem: Problem, completions: Sequence[Completion]) -> list[float | None]:
    """Return 1.0 where the answer satisfies all of the problem's constraints, else 0.0.

    None for a problem without constraints. Raises DataError for an unknown constraint.
    """
    if not problem.checks:
        return [None] * len(completions)
    return [
        float(completion.finished and all(is_satisfied(check, completion.answer) for check in problem.checks))
        for completion in completions
    ]
