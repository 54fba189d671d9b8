"""Grades recorded samples, so that votes and stopping rules can be replayed on them.

One line of a recording is one question:

    {"question", "answer", "tolerance"?, "samples": [{"text", "answer"?, "correct"?, "tokens"?,
                                        "score"?, "logprobs"?, "finish_reason"?, "effort"?}]}

A sample's own "answer" (null: it has none) and "correct" are believed. Otherwise the grader reads the
answer from the text and compares it with the question's, within its "tolerance" where the data set has
such a rule. Without "tokens" the logged ones count, else a quarter of the characters. Scores are weights
in [0, 1]; if any score of a file lies outside, all of them are taken for logits.

A gateway's own traffic (`record_to`) has correct answers only where clients have sent feedback
(`POST /v1/feedback`), which is a line of its own:

    {"feedback": {"id", "answer"?, "correct"?}}

It is joined with the line of the same "id". Its "answer" is the question's correct answer. Its "correct"
labels the returned sample, whose answer is then the question's if it was correct. In a file with feedback,
questions that still can't be judged are left out.

Traffic can also be replayed for agreement: an answer then counts as correct where the vote of all the
question's samples gives the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from policies.recordings import Feedback, RecordedRequest, RecordedSample, Recording, RecordingError
from policies.replay import GradedQuestion, GradedSample
from scorers.answers import equivalent, extract, verify
from scorers.confidence import ConfidenceScorer, ConfidenceWindow
from scorers.grader.pool import WorkerPool
from scorers.grouping import Grouper
from scorers.types import Answer, Sample

__all__ = ["grade_recording"]


def grade_recording(
    recording: Recording,
    confidence: ConfidenceScorer,
    *,
    pool: WorkerPool | None = None,
    agreement: bool = False,
) -> list[GradedQuestion]:
    """Return one question for each request of the recording. Raises RecordingError.

    `confidence` reads the samples' logprobs, where there are any. `pool` holds the grader's workers;
    without it the grader compares canonical forms alone. With `agreement` the majority of a question's
    own samples stands for its correct answer, whatever the line says of it.
    """
    grader = _Grader(confidence, pool, agreement)
    questions = []
    for line in recording.lines:
        request = _with_labels(line.request)
        if recording.has_feedback and not agreement and not _has_verdict(request):
            continue
        try:
            questions.append(grader.question(request))
        except RecordingError as error:
            raise RecordingError(f"line {line.number}: {error}") from error
    if not questions:
        raise RecordingError("the recording holds no questions")
    return _with_weights(questions)


def _with_labels(request: RecordedRequest) -> RecordedRequest:
    """Return the request with its feedback as the answer, and as the label of the returned sample."""
    feedback = request.feedback or Feedback()
    returned = request.returned
    answer = feedback.answer or request.answer
    samples = request.samples
    if feedback.correct is not None and returned is not None:
        if feedback.correct and feedback.answer is None:
            answer = returned.answer or request.answer
        labelled = returned.model_copy(update={"correct": feedback.correct})
        samples = [labelled if sample is returned else sample for sample in samples]
    return request.model_copy(update={"answer": answer, "samples": samples})


def _has_verdict(request: RecordedRequest) -> bool:
    return request.answer is not None or all(sample.correct is not None for sample in request.samples)


@dataclass(frozen=True, slots=True)
class _Grader:
    confidence: ConfidenceScorer
    pool: WorkerPool | None
    agreement: bool

    def question(self, request: RecordedRequest) -> GradedQuestion:
        """Return the request's samples, graded. Raises RecordingError."""
        pool = self.pool

        @cache
        def same(first: Answer, new: Answer) -> bool | None:
            return equivalent(first, new, pool)

        samples = []
        for position, sample in enumerate(request.samples):
            if sample.text is None and not sample.states_answer:
                raise RecordingError(f"samples.{position}: needs a text or an answer")
            if sample.correct is None and request.answer is None and not self.agreement:
                raise RecordingError(
                    f"samples.{position}: has no correct, and the question no answer to compare it with "
                    "(a recording without right answers can be replayed with --agreement)"
                )
            samples.append(self._sample(sample, request))
        if self.agreement:
            samples = _grade_by_majority(samples, same)
        certainties = self.confidence.weigh([_token_logprobs(sample) for sample in request.samples])
        pairs = zip(samples, certainties, strict=True)
        return GradedQuestion(tuple(replace(sample, certainty=value) for sample, value in pairs), same)

    def _sample(self, sample: RecordedSample, request: RecordedRequest) -> GradedSample:
        text = sample.text or ""
        graded = f"\\boxed{{{sample.answer}}}" if sample.answer is not None else text
        answer = None if sample.states_answer and sample.answer is None else extract(graded)
        correct = sample.correct
        if correct is None:
            gold = request.answer if answer is not None else None
            correct = (
                gold is not None and verify(graded, gold, self.pool, tolerance=request.tolerance) is True
            )
        window = ConfidenceWindow(self.confidence.window)
        lows = [window.feed([token]) for token in _token_logprobs(sample)]
        tokens = sample.tokens
        if tokens is None:
            tokens = len(lows) or max(1, math.ceil(len(text) / 4))
        return GradedSample(
            text=text,
            answer=answer,
            correct=correct,
            tokens=tokens,
            score=sample.score,
            truncated=sample.truncated,
            lows=lows,
            confidence=window.lowest_or_mean,
            level=sample.effort,
        )


def _grade_by_majority(
    samples: Sequence[GradedSample], same: Callable[[Answer, Answer], bool | None]
) -> list[GradedSample]:
    """Return the samples, each correct where it gives the answer that the majority of them gives."""
    grouper = Grouper(same)
    for index, sample in enumerate(samples):
        finish_reason = "length" if sample.truncated else "stop"
        grouper.add(Sample(index, sample.text, finish_reason=finish_reason), sample.answer)
    majority = grouper.groups[0].members if grouper.groups else ()
    return [replace(sample, correct=index in majority) for index, sample in enumerate(samples)]


def _token_logprobs(sample: RecordedSample) -> list[dict[str, Any]]:
    return [token.model_dump() for token in sample.token_logprobs]


def _with_weights(questions: list[GradedQuestion]) -> list[GradedQuestion]:
    """Return the questions with scores in [0, 1]: as they are, or through the logistic function."""
    scores = [
        sample.score for question in questions for sample in question.samples if sample.score is not None
    ]
    if all(0 <= score <= 1 for score in scores):
        return questions
    return [
        replace(question, samples=tuple(replace(s, score=_logistic(s.score)) for s in question.samples))
        for question in questions
    ]


def _logistic(logit: float | None) -> float | None:
    return None if logit is None else (1 + math.tanh(logit / 2)) / 2
