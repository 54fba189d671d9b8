"""Problems that reasoning-gym makes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from training.data.chains import worked_chains
from training.data.problems import DataError
from training.types import Problem

__all__ = ["gym_problems"]

_REPEATS = 4  # makes up to this many times as many problems as are wanted, to have enough different ones
_TOLERANCES: Mapping[str, Callable[[Any], float]] = {
    "coin_flip": lambda config: 1e-4,
    "decimal_arithmetic": lambda config: float(f"1e-{config.max_num_decimal_places}"),
    "number_format": lambda config: 1e-2,
}
"""The reasoning-gym tasks that mark a number right within a distance, by the task's options."""


def gym_problems(task: str, count: int, seed: int) -> list[Problem]:
    """Return `count` different problems of a reasoning-gym task, as "chain_sum" or "chain_sum:max_terms=2".

    The same task, count and seed give the same problems, with worked chains where those can be written.
    Where the task marks numbers by a distance, that is the problems' tolerance. Raises DataError, also for a
    task that has questions without one correct answer: only its own grader could mark those.
    """
    try:
        import reasoning_gym
    except ImportError as error:
        raise DataError(
            "a task needs the reasoning-gym package: pip install 'thinkgate[eval]' (or reasoning-gym)"
        ) from error
    name, options = _task(task)
    try:
        entries = reasoning_gym.create_dataset(name, size=_REPEATS * count, seed=seed, **options)
        tolerance = _TOLERANCES[name](entries.config) if name in _TOLERANCES else None
        problems = _different(name, entries, count, tolerance)
    except (ValueError, TypeError, AssertionError) as error:
        raise DataError(f"task {task!r}: {error}") from error
    if len(problems) < count:
        raise DataError(f"task {task!r} has too few different questions: {len(problems)} of {count}")
    return problems


def _different(
    name: str, entries: Iterable[dict[str, Any]], count: int, tolerance: float | None
) -> list[Problem]:
    """Return the first `count` problems whose questions differ.

    Raises ValueError for a question without a correct answer.
    """
    problems: dict[str, Problem] = {}
    for index, entry in enumerate(entries):
        if len(problems) == count:
            break
        question, answer = str(entry["question"]), str(entry["answer"] or "").strip()
        if not answer:
            raise ValueError(f"has questions without one right answer: {question!r}")
        if question in problems:
            continue
        chains = worked_chains(name, entry.get("metadata", {}))
        problems[question] = Problem(
            f"{name}/{index}",
            question,
            answer,
            source=name,
            tolerance=tolerance,
            extra={"chains": chains} if chains else {},
        )
    return list(problems.values())


def _task(task: str) -> tuple[str, dict[str, Any]]:
    """Read "chain_sum:max_terms=2" as ("chain_sum", {"max_terms": 2}); values are JSON, else text."""
    name, _, rest = task.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise DataError(f"task {task!r}: {part!r} should be option=value")
        try:
            options[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            options[key.strip()] = value
    return name.strip(), options
