"""Questions with known answers: from JSON lines, or made by reasoning-gym."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scorers.grader.tolerance import exact_tolerance

__all__ = [
    "DataError",
    "EvaluationProblem",
    "choose",
    "digest",
    "gym_problems",
    "parse_problems",
    "read_problems",
]

_REPEATS = 4  # as many are made at most as are wanted, times this, to find different ones
_QUESTIONS = ("question", "problem")
_HASHES = re.compile(r".*####\s*(.*?)\s*", re.DOTALL)
_TOLERANCES: Mapping[str, Callable[[Any], float]] = {
    "coin_flip": lambda config: 1e-4,
    "decimal_arithmetic": lambda config: float(f"1e-{config.max_num_decimal_places}"),
    "number_format": lambda config: 1e-2,
}
"""The reasoning-gym tasks that mark a number right within a distance, by the task's options."""


class DataError(Exception):
    """The data can't be used; the message names the file, line or task and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class EvaluationProblem:
    """A question and its right answer; `id` is unique within a data set.

    `metadata` is what a reasoning-gym task tells of how it made the question. `tolerance` is how far
    from the gold a number may lie and still be right; None asks for the same value.
    """

    id: str
    question: str
    gold: str
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)
    tolerance: float | None = None


def read_problems(path: Path) -> list[EvaluationProblem]:
    """The problems of a file of JSON lines, gzipped or not; see `parse_problems`. Raises DataError."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode()
    except (EOFError, UnicodeDecodeError, zlib.error, OSError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    try:
        return parse_problems(text.split("\n"))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def parse_problems(lines: Iterable[str]) -> list[EvaluationProblem]:
    """One problem for each line that isn't blank; its id is the line's number. Raises DataError.

    The question is in "question" (GSM8K) or "problem" (MATH-500), the answer in "answer": as it
    is, or behind the last #### of a worked solution, and perhaps a "tolerance".
    """
    problems = [_problem(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not problems:
        raise DataError("holds no questions")
    return problems


def gym_problems(task: str, count: int, seed: int) -> list[EvaluationProblem]:
    """`count` different problems of a reasoning-gym task, as "chain_sum" or "chain_sum:max_terms=2".

    The same task, count and seed give the same problems. A task that marks numbers by a distance
    states it as their tolerance. Raises DataError, also where the task has questions without
    one right answer, which no grader but its own could mark.
    """
    try:
        import reasoning_gym
    except ImportError as error:
        raise DataError(
            "a task needs the reasoning-gym package: pip install 'thinkgate[eval]' (or reasoning-gym)"
        ) from error
    name, options = _task(task)
    try:
        made = reasoning_gym.create_dataset(name, size=_REPEATS * count, seed=seed, **options)
        tolerance = _TOLERANCES[name](made.config) if name in _TOLERANCES else None
        problems = _different(name, made, count, tolerance)
    except (ValueError, TypeError, AssertionError) as error:
        raise DataError(f"task {task!r}: {error}") from error
    if len(problems) < count:
        raise DataError(f"task {task!r} has too few different questions: {len(problems)} of {count}")
    return problems


def digest(problems: Iterable[EvaluationProblem], chats: Mapping[str, Any]) -> str:
    """16 hex digits that differ where what is asked (`chats` by problem id) or how it is marked does."""
    told = [
        [each.id, each.gold, chats[each.id], *([] if each.tolerance is None else [each.tolerance])]
        for each in problems
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def choose(
    problems: Sequence[EvaluationProblem], count: int, shots: int, seed: int
) -> tuple[list[EvaluationProblem], list[EvaluationProblem]]:
    """(examples, asked): `shots` problems to show, and `count` others (0: all) to ask, in their order.

    Which ones depends on the seed alone; what is shown is never asked, in no copy of it either.
    Raises DataError where there are too few.
    """
    order = random.Random(seed).sample(range(len(problems)), len(problems))
    examples = [problems[i] for i in order[:shots]]
    shown = {example.question for example in examples}
    others = [i for i in order[shots:] if problems[i].question not in shown]
    wanted = count or len(others)
    if len(examples) < shots or not 0 < wanted <= len(others):
        raise DataError(f"{wanted} questions and {shots} examples were asked for; there are {len(problems)}")
    return examples, [problems[i] for i in sorted(others[:wanted])]


def _different(
    name: str, made: Iterable[dict[str, Any]], count: int, tolerance: float | None
) -> list[EvaluationProblem]:
    """The first `count` with questions of their own. Raises ValueError for one without a right answer."""
    problems: dict[str, EvaluationProblem] = {}
    for place, entry in enumerate(made):
        if len(problems) == count:
            break
        question, answer = str(entry["question"]), str(entry["answer"] or "").strip()
        if not answer:
            raise ValueError(f"has questions without one right answer: {question!r}")
        problem = EvaluationProblem(f"{name}/{place}", question, answer, entry.get("metadata", {}), tolerance)
        problems.setdefault(question, problem)
    return list(problems.values())


def _problem(number: int, line: str) -> EvaluationProblem:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"line {number}: not valid JSON ({error})") from error
    if not isinstance(fields, dict):
        raise DataError(f"line {number}: must be a JSON object")
    question = next((fields[name] for name in _QUESTIONS if name in fields), None)
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"line {number}: needs a question (or problem) with text")
    answer = fields.get("answer")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise DataError(f"line {number}: needs an answer, a string or a number")
    hashes = _HASHES.fullmatch(str(answer))
    gold = hashes[1] if hashes else str(answer).strip()
    if not gold:
        raise DataError(f"line {number}: the answer is empty")
    tolerance = fields.get("tolerance")
    try:
        exact_tolerance(tolerance)
    except ValueError as error:
        raise DataError(f"line {number}: {error}") from error
    return EvaluationProblem(str(number), question.strip(), gold, tolerance=tolerance)


def _task(task: str) -> tuple[str, dict[str, Any]]:
    """ "chain_sum:max_terms=2" -> ("chain_sum", {"max_terms": 2}); values are JSON, else text."""
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
