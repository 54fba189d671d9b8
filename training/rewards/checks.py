"""The reward for instructions with constraints that a program can check."""

from __future__ import annotations

from collections.abc import Sequence

from training.data.constraints import satisfied
from training.types import Completion, Problem

__all__ = ["checks"]


def checks(row: Problem, completions: Sequence[Completion]) -> list[float | None]:
    """1.0 where the answer keeps to all of the row's constraints, else 0.0; see `training.types.Reward`.

    None for a row without any. Raises DataError for a constraint that isn't one.
    """
    if not row.checks:
        return [None] * len(completions)
    return [
        float(each.finished and all(satisfied(check, each.answer) for check in row.checks))
        for each in completions
    ]
