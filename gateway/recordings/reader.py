"""Recorded samples, read from JSON lines and graded, ready to be replayed.

One line is one question:

    {"question", "answer", "tolerance"?, "samples": [{"text", "answer"?, "correct"?, "tokens"?,
                                        "score"?, "logprobs"?, "finish_reason"?, "effort"?}]}

A sample's own "answer" (null: it has none) and "correct" are believed; otherwise the grader
reads the answer from the text and compares it with the question's, within its "tolerance"
where the data's own rule is one. Without "tokens" they are the logged ones, else a quarter of
the characters. Scores are weights in [0, 1]; where any of a file's lies outside, all of them
are taken for logits.

A gateway's own traffic (`record_to`) has no right answers but those that clients have sent
(`POST /v1/feedback`), which are lines of their own:

    {"feedback": {"id", "answer"?, "correct"?}}

They are joined with the line of the same "id": "answer" is the question's, "correct" the label
of the sample that was returned, whose answer is then the question's if it was right. Where a
file has feedback, questions that still can't be judged are left out.

Traffic can also be replayed for agreement:
an answer then counts as right where it is the one that the vote of all the question's
samples comes to.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictBool, ValidationError

from policies.replay import Question, Recorded
from scorers.answers import equivalent, extract, verify
from scorers.confidence import ConfidenceScorer, ConfidenceWindow
from scorers.grader.pool import WorkerPool
from scorers.grouping import Grouper
from scorers.types import Answer, Sample

__all__ = ["RecordingError", "parse_questions", "read_questions"]


class RecordingError(Exception):
    """The recording can't be used; the message names the line and what is wrong with it."""


class _Top(BaseModel):
    logprob: float


class _Token(BaseModel):
    logprob: float
    top_logprobs: list[_Top] = []


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Sample(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    text: str | None = None
    answer: str | None = None
    correct: StrictBool | None = None
    tokens: Annotated[int, Field(ge=0)] | None = None
    score: FiniteFloat | None = None
    logprobs: _Logprobs | list[_Token] | None = None
    finish_reason: str | None = None
    effort: str | None = None


class _Line(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: str | None = None
    answer: str | None = None
    tolerance: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    samples: Annotated[list[_Sample], Field(min_length=1)]
    winner: Annotated[int, Field(ge=0)] | None = None


class _Said(BaseModel):
    id: str = ""
    answer: str | None = None
    correct: StrictBool | None = None


class _Feedback(BaseModel):
    feedback: _Said | None = None
    samples: Any = None


def read_questions(
    path: Path, confidence: ConfidenceScorer, *, pool: WorkerPool | None = None, agreement: bool = False
) -> list[Question]:
    """The questions of a file, gzipped or not; see `parse_questions`. Raises RecordingError and OSError."""
    raw = path.read_bytes()
    try:
        text = (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode()
    except (EOFError, UnicodeDecodeError, gzip.BadGzipFile, zlib.error) as error:
        raise RecordingError(f"{path} can't be read: {error}") from error
    return parse_questions(text.split("\n"), confidence, pool=pool, agreement=agreement)


def parse_questions(
    lines: Iterable[str],
    confidence: ConfidenceScorer,
    *,
    pool: WorkerPool | None = None,
    agreement: bool = False,
) -> list[Question]:
    """One question for each line that isn't blank. Raises RecordingError.

    `confidence` reads the samples' logprobs, where there are any; `pool` holds the grader's
    workers, without which it compares canonical forms alone. With `agreement` the majority of
    a question's own samples stands for its right answer, whatever the line says of it.
    """
    questions = []
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    said: dict[str, list[_Said]] = {}
    for number, line in numbered:
        try:
            if remark := _feedback(line):
                said.setdefault(remark.id, []).append(remark)
        except ValidationError as error:
            raise RecordingError(f"line {number}: {_explain(error)}") from error
    for number, line in numbered:
        try:
            if said and _feedback(line):
                continue
            held = _Line.model_validate_json(line)
            for remark in said.get(held.id or "", ()):
                _join(held, remark)
            if said and not agreement and not _judged(held):
                continue
            questions.append(_question(held, confidence, pool, agreement))
        except ValidationError as error:
            raise RecordingError(f"line {number}: {_explain(error)}") from error
        except RecordingError as error:
            raise RecordingError(f"line {number}: {error}") from error
    if not questions:
        raise RecordingError("the recording holds no questions")
    return _weighed(questions)


def _feedback(line: str) -> _Said | None:
    """The feedback that a line is; None for a line of samples."""
    if '"feedback"' not in line:
        return None
    told = _Feedback.model_validate_json(line)
    return told.feedback if told.samples is None else None


def _join(line: _Line, said: _Said) -> None:
    """Puts feedback where the line has room for it; later feedback wins."""
    place = line.winner if line.winner is not None else 0
    returned = line.samples[min(place, len(line.samples) - 1)]
    if said.correct is not None:
        returned.correct = said.correct
        if said.correct and said.answer is None:
            line.answer = returned.answer or line.answer
    line.answer = said.answer or line.answer


def _judged(line: _Line) -> bool:
    return line.answer is not None or all(sample.correct is not None for sample in line.samples)


def _question(
    line: _Line, confidence: ConfidenceScorer, pool: WorkerPool | None, agreement: bool
) -> Question:
    @cache
    def same(first: Answer, new: Answer) -> bool | None:
        return equivalent(first, new, pool)

    samples = []
    for position, sample in enumerate(line.samples):
        if sample.text is None and "answer" not in sample.model_fields_set:
            raise RecordingError(f"samples.{position}: needs a text or an answer")
        if sample.correct is None and line.answer is None and not agreement:
            raise RecordingError(
                f"samples.{position}: has no correct, and the question no answer to compare it with "
                "(a recording without right answers can be replayed with --agreement)"
            )
        samples.append(_recorded(sample, line, confidence.window, pool))
    if agreement:
        samples = _agreeing(samples, same)
    sure = confidence.weigh([_logged(sample) for sample in line.samples])
    return Question(tuple(replace(s, sureness=w) for s, w in zip(samples, sure, strict=True)), same)


def _recorded(sample: _Sample, line: _Line, window: int, pool: WorkerPool | None) -> Recorded:
    text = sample.text or ""
    graded = f"\\boxed{{{sample.answer}}}" if sample.answer is not None else text
    answer = extract(graded)
    if "answer" in sample.model_fields_set and sample.answer is None:
        answer = None
    correct = sample.correct
    if correct is None:
        gold = line.answer if answer is not None else None
        correct = gold is not None and verify(graded, gold, pool, tolerance=line.tolerance) is True
    watched = ConfidenceWindow(window)
    lows = [watched.feed([token]) for token in _logged(sample)]
    tokens = sample.tokens if sample.tokens is not None else len(lows) or max(1, math.ceil(len(text) / 4))
    return Recorded(
        text=text,
        answer=answer,
        correct=correct,
        tokens=tokens,
        score=sample.score,
        truncated=sample.finish_reason == "length",
        lows=lows,
        confidence=watched.lowest_or_mean,
        level=sample.effort,
    )


def _agreeing(samples: Sequence[Recorded], same: Callable[[Answer, Answer], bool | None]) -> list[Recorded]:
    """The samples, right where they give the answer that the majority of all of them gives."""
    grouper = Grouper(same)
    for index, each in enumerate(samples):
        finish = "length" if each.truncated else "stop"
        grouper.add(Sample(index, each.text, finish_reason=finish), each.answer)
    leading = grouper.groups[0].members if grouper.groups else ()
    return [replace(each, correct=index in leading) for index, each in enumerate(samples)]


def _logged(sample: _Sample) -> list[dict[str, Any]]:
    """The sample's tokens with their logprobs, given bare or as OpenAI wraps them."""
    given = sample.logprobs
    tokens = given if isinstance(given, list) else given.content if given else None
    return [token.model_dump() for token in tokens or ()]


def _weighed(questions: list[Question]) -> list[Question]:
    """The questions with scores in [0, 1]: as they are, or through the logistic function."""
    scores = [each.score for question in questions for each in question.samples if each.score is not None]
    if all(0 <= score <= 1 for score in scores):
        return questions
    return [
        replace(question, samples=tuple(replace(s, score=_logistic(s.score)) for s in question.samples))
        for question in questions
    ]


def _logistic(logit: float | None) -> float | None:
    return None if logit is None else (1 + math.tanh(logit / 2)) / 2


def _explain(error: ValidationError) -> str:
    """The first problem in words: where it is, and what is wrong."""
    problem: Any = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]
