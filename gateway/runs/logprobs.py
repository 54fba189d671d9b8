"""Removes the logprobs that only the vote needed from what the client gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.errors import UpstreamError
from gateway.runs.events import Delta
from scorers.types import Sample

__all__ = ["refuses_logprobs", "trim_delta_logprobs", "trim_sample_logprobs"]


def refuses_logprobs(error: UpstreamError) -> bool:
    """Tell whether an engine refuses to give logprobs."""
    return error.status in {400, 422, 501} and "logprobs" in error.message.lower()


def trim_sample_logprobs(sample: Sample, body: Mapping[str, Any]) -> Sample:
    """Return the sample with the logprobs that the client's own `body` asks for, and no more."""
    if sample.logprobs is None:
        return sample
    return replace(sample, logprobs=_trim(sample.logprobs, body))


def trim_delta_logprobs(delta: Delta, body: Mapping[str, Any]) -> Delta:
    """Return the delta with the logprobs that the client's own `body` asks for, and no more."""
    if delta.choice.get("logprobs") is None:
        return delta
    choice = {**delta.choice, "logprobs": _trim(delta.choice["logprobs"], body)}
    return replace(delta, choice=choice)


def _trim(logprobs: Mapping[str, Any], body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not body.get("logprobs"):
        return None
    top = body.get("top_logprobs") or 0
    tokens = logprobs.get("content") or ()
    content = [{**entry, "top_logprobs": (entry.get("top_logprobs") or [])[:top]} for entry in tokens]
    return {**logprobs, "content": content}
