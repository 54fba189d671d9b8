"""Rows read from JSON lines, or made of problems; and rows as JSON."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scorers.grader.tolerance import exact_tolerance
from training.data.chains import worked_chains
from training.data.problems import DataError, EvaluationProblem, gym_problems, parse_problems
from training.types import Problem

__all__ = ["fingerprint", "gym_rows", "parse_rows", "read_lines", "read_rows", "row_json", "rows_of"]

_FIELDS = {field.name for field in dataclasses.fields(Problem)} - {"gold"}
_NEEDS = {"tests": "tests", "checks": "checks"}


def rows_of(problems: Iterable[EvaluationProblem], source: str) -> list[Problem]:
    """Problems as rows that `correct` judges; the source makes their ids unique over data sets."""
    return [
        Problem(f"{source}/{each.id}", each.question, each.gold, source=source, tolerance=each.tolerance)
        for each in problems
    ]


def gym_rows(task: str, count: int, seed: int) -> list[Problem]:
    """Rows of a reasoning-gym task, with worked chains where those can be written. Raises DataError."""
    name = task.partition(":")[0]
    rows = []
    for each in gym_problems(task, count, seed):
        chains = worked_chains(name, each.metadata)
        extra = {"chains": chains} if chains else {}
        key = f"gym/{seed}/{each.id}"
        rows.append(
            Problem(key, each.question, each.gold, source=name, tolerance=each.tolerance, extra=extra)
        )
    return rows


def read_lines(path: Path) -> list[str]:
    """The lines of a file, gzipped or not. Raises DataError."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode().split("\n")
    except (EOFError, UnicodeDecodeError, zlib.error, OSError) as error:
        raise DataError(f"{path} can't be read: {error}") from error


def read_rows(path: Path, source: str = "") -> list[Problem]:
    """The rows of a file of JSON lines; see `parse_rows`. The source is the file's name, unless given."""
    lines = read_lines(path)
    try:
        return parse_rows(lines, source or path.name.partition(".")[0])
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def parse_rows(lines: Sequence[str], source: str) -> list[Problem]:
    """One row for each line that isn't blank. Raises DataError.

    A line is a problem, as `training.data.problems.parse_problems` reads it, or has a "reward" other than
    "correct" and then what that needs in place of an answer ("tests", "checks"; a "rubric", or
    "pairs" of a reply that was liked and one that was not, where it likes). "id", "source", "general"
    and "extra" may stand in any.
    """
    told = {number: _object(number, line) for number, line in enumerate(lines, 1) if line.strip()}
    if not told:
        raise DataError("holds no questions")
    answered = {number for number, fields in told.items() if fields.get("reward", "correct") == "correct"}
    kept = [line if number in answered else "" for number, line in enumerate(lines, 1)]
    problems = {int(each.id): each for each in (parse_problems(kept) if answered else ())}
    return [_row(number, fields, problems.get(number), source) for number, fields in told.items()]


def row_json(row: Problem) -> dict[str, Any]:
    """A row as a line of JSON that `parse_rows` reads again; what is empty is left out."""
    fields = dataclasses.asdict(row) | {
        "checks": [dict(check) for check in row.checks],
        "pairs": list(map(list, row.pairs)),
    }
    fields["answer"] = fields.pop("gold")
    return {name: value for name, value in fields.items() if value not in (None, "", [], {}, False)}


def fingerprint(rows: Iterable[Problem]) -> str:
    """The SHA-256, in hex, of the rows in their order: equal for the same data, on any machine."""
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps(row_json(row), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _object(number: int, line: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"line {number}: not valid JSON ({error})") from error
    if not isinstance(fields, dict):
        raise DataError(f"line {number}: must be a JSON object")
    return fields


def _pairs(number: int, told: Any) -> tuple[tuple[str, str], ...]:
    found = []
    for pair in told if isinstance(told, list) else (told,):
        if not isinstance(pair, list) or [type(text) for text in pair] != [str, str]:
            raise DataError(f"line {number}: pairs is a list of [liked, not liked], two texts each")
        found.append((pair[0], pair[1]))
    return tuple(found)


def _row(number: int, fields: Mapping[str, Any], problem: EvaluationProblem | None, source: str) -> Problem:
    question = problem.question if problem else fields.get("question", fields.get("problem"))
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"line {number}: needs a question (or problem) with text")
    reward = fields.get("reward", "correct")
    if not isinstance(reward, str):
        raise DataError(f"line {number}: the reward must be a name")
    need = _NEEDS.get(reward)
    if need and not fields.get(need):
        raise DataError(f"line {number}: the reward {reward!r} needs {need}")
    source = str(fields.get("source", source))
    taken = {name: value for name, value in fields.items() if name in _FIELDS - {"question", "id", "source"}}
    try:
        exact_tolerance(taken.get("tolerance"))
    except ValueError as error:
        raise DataError(f"line {number}: {error}") from error
    if "checks" in taken:
        taken["checks"] = tuple(taken["checks"])
    if "pairs" in taken:
        taken["pairs"] = _pairs(number, taken["pairs"])
    gold = problem.gold if problem else None
    return Problem(str(fields.get("id", f"{source}/{number}")), question, gold, source=source, **taken)
