"""Turns an answered request, or feedback on one, into its line of the recording. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.recordings.conversation import InlineImage, recorded_messages, recorded_question
from gateway.runs.events import RunResult
from gateway.runs.request import RunRequest
from policies.recordings import (
    VERSION,
    Feedback,
    FeedbackLine,
    RecordedRequest,
    RecordedSample,
    RecordedSetting,
    TokenLogprob,
)
from scorers.answers import extract
from scorers.types import Sample

__all__ = ["UNKNOWN", "Provenance", "recorded_feedback", "recorded_request"]

_CONVERSATION = ("question", "messages", "tools")
_HIDDEN_IN_SAMPLES = {"reasoning": ("reasoning",), "text": ("text", "tool_calls")}


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an answer comes from: its ids, who asked, and whether training may use it.

    `owner` is the digest of the key that asked; it decides who may give feedback and is never written.
    """

    completion_id: str = ""
    request_id: str = ""
    owner: str = ""
    key_name: str = ""
    session: str = ""
    training_allowed: bool = True


UNKNOWN = Provenance()
"""The provenance of a request that came without an HTTP route."""


def recorded_request(
    request: RunRequest,
    result: RunResult,
    when: float,
    redact: Collection[str] = (),
    provenance: Provenance = UNKNOWN,
) -> tuple[RecordedRequest, list[InlineImage]]:
    """Return the line of a request and the images in it; `when` is in seconds since 1970.

    Raises ValueError for text that is no Unicode.
    """
    messages, images = recorded_messages(request.body["messages"], redact)
    samples = sorted(result.samples, key=lambda sample: sample.index)
    winner = None if result.vote is None else result.vote.winner
    fields: dict[str, Any] = {
        "version": VERSION,
        **_provenance(provenance),
        "time": _timestamp(when),
        "training_allowed": provenance.training_allowed,
        "model": request.model.name,
        **({"alias": request.route.alias, "target": request.route.target} if request.route else {}),
        "question": recorded_question(request.body["messages"]),
        "messages": messages,
        **({"tools": request.body["tools"]} if request.body.get("tools") else {}),
        "samples": [_sample(sample, request, result, redact) for sample in samples],
        "winner": next((i for i, sample in enumerate(samples) if sample.index == winner), None),
        "budget": _setting(request),
        "tokens": result.generated,
        "reasoning_tokens": result.reasoning,
        "seconds": round(result.seconds, 3),
        "aborted": result.counts.aborted,
        "failed": result.counts.failed,
    }
    if "question" in redact:
        fields = {name: value for name, value in fields.items() if name not in _CONVERSATION}
        images = []
    return RecordedRequest(**fields), images


def recorded_feedback(feedback: Feedback, when: float, redact: Collection[str] = ()) -> FeedbackLine:
    """Return the line of one feedback. A comment is the user's words, so it is redacted as questions are."""
    hidden = {"comment"} if "question" in redact else set()
    visible = Feedback(**feedback.model_dump(exclude_none=True, exclude=hidden))
    return FeedbackLine(version=VERSION, feedback=visible, time=_timestamp(when))


def _provenance(provenance: Provenance) -> dict[str, str]:
    fields = {
        "id": provenance.completion_id,
        "request_id": provenance.request_id,
        "key_name": provenance.key_name,
        "session": provenance.session,
    }
    return {name: value for name, value in fields.items() if value}


def _setting(request: RunRequest) -> RecordedSetting:
    sampling = request.sampling
    return RecordedSetting(
        asked=request.requested_budget,
        effort=sampling.level,
        thinking_tokens=sampling.thinking_limit,
        samples=sampling.samples,
        vote=sampling.vote,
        scorer=sampling.scorer,
        stop=sampling.stop,
        window=sampling.window,
        threshold=sampling.threshold,
    )


def _sample(
    sample: Sample, request: RunRequest, result: RunResult, redact: Collection[str]
) -> RecordedSample:
    """Return the sample as it is recorded; a truncated one has no answer that counts."""
    answer = None if sample.truncated else extract(sample.content)
    logprobs = _logprobs(sample)
    score = result.scores.get(sample.index)
    fields: dict[str, Any] = {
        "model": result.models.get(sample.index, request.model.name),
        "text": sample.content,
        "reasoning": sample.reasoning,
        **({"tool_calls": list(sample.tool_calls)} if sample.tool_calls else {}),
        "answer": answer.raw if answer else None,
        "tokens": sample.usage.completion,
        "reasoning_tokens": sample.usage.reasoning,
        "finish_reason": sample.finish_reason,
        **({"score": score} if score is not None else {}),
        **({"logprobs": logprobs} if logprobs else {}),
    }
    hidden = {name for word in redact for name in _HIDDEN_IN_SAMPLES.get(word, ())}
    return RecordedSample(**{name: value for name, value in fields.items() if name not in hidden})


def _logprobs(sample: Sample) -> list[TokenLogprob]:
    """Return the sample's logprobs without the text of its tokens; empty where it came without any."""
    tokens: Any = (sample.logprobs or {}).get("content") or ()
    try:
        return [TokenLogprob.model_validate(_numbers(token)) for token in tokens]
    except (AttributeError, KeyError, TypeError, ValueError):  # the upstream has a form of its own
        return []


def _numbers(token: Mapping[str, Any]) -> dict[str, Any]:
    top = token.get("top_logprobs") or ()
    return {
        "logprob": round(token["logprob"], 4),
        **({"top_logprobs": [{"logprob": round(other["logprob"], 4)} for other in top]} if top else {}),
    }


def _timestamp(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")
