"""What the gateway recorded, with its clients' feedback, as training problems and preferences.

The form of the file is that of `policies.recordings`. Feedback is about the returned sample.

- An answer makes a problem with that gold answer.
- `correct` makes a problem whose gold answer is the returned sample's.
- Without either, the question makes a problem for the majority reward, on request.
- A rating, or `correct`, makes a preference between the returned sample and one with another answer.

Lines that training may not use are left out (`training_allowed`), and so are lines without a question.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from policies.recordings import Feedback, RecordedRequest, RecordedSample, RecordingError, read_recording
from scorers.answers import equivalent, extract
from scorers.types import Answer
from training.data.instructions import PreferencePair
from training.data.problems import DataError
from training.types import Problem

__all__ = ["rated_problems", "recorded_preferences", "recorded_problems"]

_log = logging.getLogger(__name__)


def recorded_problems(path: Path, *, unlabelled: bool = False) -> list[Problem]:
    """Return one problem for each question whose answer feedback tells; the latest word counts.

    With `unlabelled` the other questions are added for the majority reward. Raises DataError.
    """
    problems: dict[str, Problem] = {}
    for line in _questions(path):
        gold = _gold(line.request)
        name = f"recorded/{line.number}"
        if gold is not None:
            problems[line.question] = Problem(name, line.question, gold, source="recorded")
        elif unlabelled and line.question not in problems:
            problems[line.question] = Problem(name, line.question, reward="majority", source="recorded")
    return list(problems.values())


def rated_problems(path: Path) -> list[Problem]:
    """Return one problem with all its pairs for each rated question, for the preference model.

    Raises DataError.
    """
    problems: dict[str, Problem] = {}
    for preference in recorded_preferences(path):
        question = preference.problem.question
        problem = problems.setdefault(question, replace(preference.problem, general=True))
        if (pair := (preference.chosen, preference.rejected)) not in problem.pairs:
            problems[question] = replace(problem, pairs=(*problem.pairs, pair))
    return list(problems.values())


def recorded_preferences(path: Path) -> list[PreferencePair]:
    """Return one pair for each rated request with a sample to compare the returned one with.

    A liked sample is chosen over the first other sample with another answer; a disliked one is rejected for
    it. Where answers can't be compared, other text is another answer. Raises DataError.
    """
    preferences = []
    for line in _questions(path):
        request, returned = line.request, _returned_sample(line.request)
        liked = _is_liked(request.feedback) if request.feedback else None
        if liked is None or returned is None:
            continue
        other = next((sample for sample in request.samples if _differ(returned, sample)), None)
        if other is None:
            continue
        problem = Problem(f"rated/{line.number}", line.question, reward="preference", source="rated")
        texts = returned.text or "", other.text or ""
        preferences.append(PreferencePair(problem, *(texts if liked else texts[::-1])))
    return preferences


@dataclass(frozen=True, slots=True)
class _Question:
    number: int
    question: str
    request: RecordedRequest


def _questions(path: Path) -> Iterator[_Question]:
    """Yield the requests that training may use and whose question is known. Raises DataError."""
    try:
        recording = read_recording(path)
    except RecordingError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(f"{path} can't be read: {error}") from error
    if recording.notice:
        _log.warning("%s: %s", path, recording.notice)
    allowed, forbidden = recording.for_training()
    if forbidden == 1:
        _log.warning("%s: 1 line was left out, as its key doesn't allow training.", path)
    elif forbidden:
        _log.warning("%s: %d lines were left out, as their keys don't allow training.", path, forbidden)
    for line in allowed.lines:
        if question := (line.request.question or "").strip():
            yield _Question(line.number, question, line.request)


def _gold(request: RecordedRequest) -> str | None:
    feedback = request.feedback or Feedback()
    if feedback.answer and feedback.answer.strip():
        return feedback.answer.strip()
    returned = _returned_sample(request) if feedback.correct else None
    answer = None if returned is None else _answer(returned)
    return None if answer is None else answer.raw


def _is_liked(feedback: Feedback) -> bool | None:
    if feedback.correct is not None:
        return feedback.correct
    return None if feedback.rating is None else feedback.rating == 1


def _returned_sample(request: RecordedRequest) -> RecordedSample | None:
    """Return the sample that the client got; None where it is not known or its text was not recorded."""
    returned = request.returned
    return returned if returned is not None and returned.text else None


def _answer(sample: RecordedSample) -> Answer | None:
    """Return the recorded answer, else the one that the grader reads; a truncated sample has none."""
    if sample.truncated:
        return None
    return extract(f"\\boxed{{{sample.answer}}}" if sample.answer is not None else sample.text or "")


def _differ(returned: RecordedSample, sample: RecordedSample) -> bool:
    if not sample.text or sample.truncated:
        return False
    one, other = _answer(returned), _answer(sample)
    if one is None or other is None:
        return sample.text != returned.text
    return equivalent(one, other) is False
