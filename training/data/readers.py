"""Problems read from JSON lines, gzipped or not; and problems written as JSON.

A line is an object with these fields:

- `question` or `problem`: the question, as GSM8K or MATH-500 names it.
- `answer`: the correct answer, as it is or behind the last #### of a worked solution.
- `tolerance`: how far from the answer a number may lie.
- `reward`: what judges replies. The default is "tests" for tests without an answer, else "correct".
- `tests`: Python assertions about the functions of a reply.
- `cases` or `input_output`: standard input and output of a program, see `training.data.cases`.
- `time_limit`: seconds for each of the cases.
- `checks`: constraints, see `training.data.constraints`.
- `rubric`: what a judge grades by.
- `pairs`: a list of [liked, not liked], two replies each.
- `id`, `source`, `general`, `extra`: as in `training.types.Problem`.

Columns that published sets carry beside these may stay (`_IGNORED`). Any other field is an error, because a
misspelt one would change which reply is correct.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scorers.grader.tolerance import exact_tolerance
from training.data.cases import parse_cases, parse_seconds
from training.data.problems import DataError
from training.types import Problem

__all__ = [
    "FIELDS",
    "fingerprint",
    "parse_problems",
    "problem_json",
    "read_answered",
    "read_lines",
    "read_problems",
]

FIELDS = (
    "answer",
    "cases",
    "checks",
    "extra",
    "general",
    "id",
    "input_output",
    "pairs",
    "problem",
    "question",
    "reward",
    "rubric",
    "source",
    "tests",
    "time_limit",
    "tolerance",
)
_IGNORED = frozenset(
    {
        # MATH and MATH-500
        "level",
        "solution",
        "subject",
        "type",
        "unique_id",
        # AIME
        "year",
        # APPS and TACO
        "Expected Auxiliary Space",
        "Expected Time Complexity",
        "date",
        "difficulty",
        "memory_limit",
        "name",
        "picture_num",
        "problem_id",
        "raw_tags",
        "skill_types",
        "solutions",
        "starter_code",
        "tags",
        "url",
    }
)
_TYPES: Mapping[str, tuple[type, str]] = {
    "extra": (dict, "an object"),
    "general": (bool, "true or false"),
    "rubric": (str, "a text"),
    "tests": (str, "a text of Python assertions"),
}
_HASHES = re.compile(r".*####\s*(.*?)\s*", re.DOTALL)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file, gzipped or not. Raises DataError."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode().split("\n")
    except (EOFError, UnicodeDecodeError, zlib.error, OSError) as error:
        raise DataError(f"{path} can't be read: {error}") from error


def read_problems(path: Path, source: str = "") -> list[Problem]:
    """Return the problems of a file, whose name is the source unless one is given. Raises DataError."""
    return parse_problems(read_lines(path), name=str(path), source=source or path.name.partition(".")[0])


def read_answered(path: Path) -> list[Problem]:
    """Return the problems of a file for an evaluation, which needs an answer to each. Raises DataError.

    Ids are the lines' numbers.
    """
    source, problems = path.name.partition(".")[0], []
    for number, problem in _numbered(read_lines(path), str(path), source):
        if problem.gold is None:
            raise DataError(f"{path}, line {number}: needs an answer, a string or a number")
        problems.append(dataclasses.replace(problem, id=str(number)))
    return problems


def parse_problems(lines: Iterable[str], *, name: str = "", source: str = "") -> list[Problem]:
    """Return one problem for each line that isn't blank. `name` says in errors where the lines come from.

    A problem without an id takes the source and the line's number. Raises DataError.
    """
    return [problem for _, problem in _numbered(lines, name, source)]


def problem_json(problem: Problem) -> dict[str, Any]:
    """Return a problem as an object that `parse_problems` reads again, without the empty fields."""
    fields = dataclasses.asdict(problem) | {
        "checks": [dict(check) for check in problem.checks],
        "pairs": list(map(list, problem.pairs)),
        "cases": [
            {key: value for key, value in dataclasses.asdict(case).items() if value is not None}
            for case in problem.cases
        ],
    }
    fields["answer"] = fields.pop("gold")
    return {name: value for name, value in fields.items() if value not in (None, "", [], {}, False)}


def fingerprint(problems: Iterable[Problem]) -> str:
    """Return the SHA-256, in hex, of the problems in their order: equal for the same data, on any machine."""
    digest = hashlib.sha256()
    for problem in problems:
        line = json.dumps(problem_json(problem), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _numbered(lines: Iterable[str], name: str, source: str) -> Iterator[tuple[int, Problem]]:
    """Yield each line's number and problem. Raises DataError, which names the line."""
    number = 0
    for number, line in ((number, line) for number, line in enumerate(lines, 1) if line.strip()):
        try:
            problem = _problem(number, _object(line), source)
        except ValueError as error:
            raise DataError(f"{name}, line {number}: {error}".removeprefix(", ")) from error
        yield number, problem
    if not number:
        raise DataError(f"{name}: holds no questions".removeprefix(": "))


def _object(line: str) -> Mapping[str, Any]:
    """Return a line's fields without those that are null or ignored. Raises ValueError."""
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError("must be a JSON object")
    fields = {name: value for name, value in fields.items() if name not in _IGNORED}
    if unknown := sorted(set(fields) - set(FIELDS)):
        raise ValueError(f"unknown field {unknown[0]!r}; allowed: {', '.join(FIELDS)}")
    return {name: value for name, value in fields.items() if value is not None}


def _problem(number: int, fields: Mapping[str, Any], source: str) -> Problem:
    """Make a problem of a line's fields. Raises ValueError."""
    for name, (kind, description) in _TYPES.items():
        if name in fields and not isinstance(fields[name], kind):
            raise ValueError(f"{name} must be {description}")
    question = fields.get("question", fields.get("problem"))
    if not isinstance(question, str) or not question.strip():
        raise ValueError("needs a question (or problem) with text")
    cases = parse_cases(
        fields.get("cases", fields.get("input_output")), parse_seconds(fields.get("time_limit"))
    )
    tests, checks = fields.get("tests", ""), _checks(fields.get("checks", []))
    coded = bool(tests or cases)
    reward = fields.get("reward", "tests" if coded and "answer" not in fields else "correct")
    if not isinstance(reward, str):
        raise ValueError("the reward must be a name")
    if reward == "tests" and not coded:
        raise ValueError("the reward 'tests' needs tests or cases")
    if reward == "checks" and not checks:
        raise ValueError("the reward 'checks' needs checks")
    exact_tolerance(fields.get("tolerance"))
    source = str(fields.get("source", source))
    return Problem(
        str(fields.get("id", f"{source}/{number}")),
        question.strip(),
        _gold(fields.get("answer"), needed=reward == "correct"),
        reward=reward,
        tests=tests,
        checks=checks,
        rubric=fields.get("rubric", ""),
        pairs=_pairs(fields.get("pairs", [])),
        source=source,
        general=fields.get("general", False),
        tolerance=fields.get("tolerance"),
        extra=fields.get("extra", {}),
        cases=cases,
    )


def _gold(answer: Any, *, needed: bool) -> str | None:
    """Return the correct answer; None where it isn't needed and can't be read. Raises ValueError."""
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        if needed:
            raise ValueError("needs an answer, a string or a number")
        return None
    match = _HASHES.fullmatch(str(answer))
    gold = match[1] if match else str(answer).strip()
    if needed and not gold:
        raise ValueError("the answer is empty")
    return gold or None


def _checks(values: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the constraints of a line. Raises ValueError."""
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError("checks is a list of objects")
    return tuple(values)


def _pairs(values: Any) -> tuple[tuple[str, str], ...]:
    """Return pairs of replies, the liked one first. Raises ValueError."""
    pairs = []
    for pair in values if isinstance(values, list) else [values]:
        if not isinstance(pair, list) or [type(text) for text in pair] != [str, str]:
            raise ValueError("pairs is a list of [liked, not liked], two texts each")
        pairs.append((pair[0], pair[1]))
    return tuple(pairs)
