"""What the gateway recorded, with its users' feedback, as rows and preferences.

A line is a request as the gateway records it, or what was said of one, by its id:

    {"id", "question", "samples": [{"text", "reasoning"?, "answer"?, "finish_reason"?}], "winner"?}
    {"feedback": {"id", "rating"?: 1 | -1, "correct"?: bool, "answer"?: text}}

Feedback speaks of the winner, and follows it: of an id that came back, the latest request is meant. It may
stand in the request's own line as well. Said twice, the last word counts.

| feedback | becomes |
|---|---|
| an answer | a row with that gold answer |
| correct | a row whose gold answer is the winner's |
| none of these | a row for the majority reward, where it was asked for |
| a rating, or correct | a preference between the winner and a sample that answers otherwise; a row with it |
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scorers.answers import equivalent, extract
from scorers.types import Answer
from training.data.instructions import PreferencePair
from training.data.problems import DataError
from training.data.readers import read_lines
from training.types import Problem

__all__ = ["parse_recorded", "rated_rows", "recorded_preferences", "recorded_rows"]


def parse_recorded(lines: Iterable[str]) -> list[Mapping[str, Any]]:
    """The requests whose question was recorded, each with its "line" and all that was said of it.

    Raises DataError for what is no recording.
    """
    latest: dict[str, dict[str, Any]] = {}  # by id, what was said of the request that has it
    requests: list[Mapping[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = _line(number, line)
        remark = _feedback(fields)
        if "samples" not in fields:
            latest.setdefault(str(remark.get("id")), {}).update(remark)
            continue
        feedback = dict(remark)
        if isinstance(fields.get("id"), str):
            latest[fields["id"]] = feedback
        if isinstance(fields.get("question"), str) and fields["question"].strip():
            requests.append({**fields, "feedback": feedback, "line": number})
    return requests


def _line(number: int, line: str) -> Mapping[str, Any]:
    """A request, or feedback on one. Raises DataError."""
    try:
        told = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"line {number}: not valid JSON ({error})") from error
    if not isinstance(told, dict):
        raise DataError(f"line {number}: must be a JSON object")
    samples = told.get("samples", [] if _feedback(told) else None)
    if not isinstance(samples, list) or not all(isinstance(each, dict) for each in samples):
        raise DataError(f"line {number}: is no recorded request: it has no samples")
    return told


def recorded_rows(path: Path, *, unlabelled: bool = False) -> list[Problem]:
    """One row for each question that feedback tells the answer of, the latest word counting.

    With `unlabelled` the other questions come along for the majority reward. Raises DataError.
    """
    rows: dict[str, Problem] = {}
    for request in parse_recorded(read_lines(path)):
        question = request["question"].strip()
        name = f"recorded/{request['line']}"
        gold = _gold(request)
        if gold is not None:
            rows[question] = Problem(name, question, gold, source="recorded")
        elif unlabelled and question not in rows:
            rows[question] = Problem(name, question, reward="majority", source="recorded")
    return list(rows.values())


def rated_rows(path: Path) -> list[Problem]:
    """One row for each rated question, with all its pairs, for the preference model. Raises DataError."""
    rows: dict[str, Problem] = {}
    for pair in recorded_preferences(path):
        row = rows.setdefault(pair.problem.question, replace(pair.problem, general=True))
        if (both := (pair.chosen, pair.rejected)) not in row.pairs:
            rows[row.question] = replace(row, pairs=(*row.pairs, both))
    return list(rows.values())


def recorded_preferences(path: Path) -> list[PreferencePair]:
    """One pair for each rated request that has a sample to compare the winner with. Raises DataError.

    A liked winner is chosen over the first other sample with another answer, a disliked one is
    rejected for it; without any answers to compare, other text is another answer.
    """
    pairs = []
    for request in parse_recorded(read_lines(path)):
        liked, winner = _liked(request), _winner(request)
        if liked is None or winner is None:
            continue
        other = next((each for each in request["samples"] if _differ(winner, each)), None)
        if other is None:
            continue
        name, question = f"rated/{request['line']}", request["question"].strip()
        row = Problem(name, question, reward="preference", source="rated")
        texts = str(winner["text"]), str(other["text"])
        pairs.append(PreferencePair(row, *(texts if liked else texts[::-1])))
    return pairs


def _feedback(request: Mapping[str, Any]) -> Mapping[str, Any]:
    told = request.get("feedback")
    return told if isinstance(told, dict) else {}


def _gold(request: Mapping[str, Any]) -> str | None:
    told = _feedback(request)
    if isinstance(told.get("answer"), str) and told["answer"].strip():
        return str(told["answer"]).strip()
    winner = _winner(request) if told.get("correct") is True else None
    answer = None if winner is None else _answer(winner)
    return None if answer is None else answer.raw


def _liked(request: Mapping[str, Any]) -> bool | None:
    told = _feedback(request)
    if isinstance(told.get("correct"), bool):
        return bool(told["correct"])
    rating = told.get("rating")
    return True if rating == 1 else False if rating == -1 else None


def _winner(request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The sample that was returned: the only one, or the vote's."""
    samples, place = request["samples"], request.get("winner")
    if place is None and len(samples) == 1:
        place = 0
    if not isinstance(place, int) or not 0 <= place < len(samples) or not samples[place].get("text"):
        return None
    winner: Mapping[str, Any] = samples[place]
    return winner


def _answer(sample: Mapping[str, Any]) -> Answer | None:
    """The recorded answer, else the one that the grader reads; a cut-off sample has none."""
    if sample.get("finish_reason") == "length":
        return None
    given = sample.get("answer")
    return extract(f"\\boxed{{{given}}}" if isinstance(given, str) else str(sample.get("text", "")))


def _differ(winner: Mapping[str, Any], sample: Mapping[str, Any]) -> bool:
    if not sample.get("text") or sample.get("finish_reason") == "length":
        return False
    one, other = _answer(winner), _answer(sample)
    if one is None or other is None:
        return bool(sample["text"] != winner["text"])
    return equivalent(one, other) is False
