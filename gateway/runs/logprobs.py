"""Keeps the logprobs that a vote needs from a client that didn't ask for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.errors import UpstreamError
from gateway.runs.events import Delta
from scorers.types import Sample

__all__ = ["delta_as_asked", "refuses_logprobs", "sample_as_asked"]

_LOGPROBS = re.compile("logprobs", re.IGNORECASE)


def refuses_logprobs(error: UpstreamError) -> bool:
    """Tell whether an engine's 4xx is about logprobs."""
    return error.status in {400, 422, 501} and bool(_LOGPROBS.search(error.message))


def sample_as_asked(sample: Sample, body: Mapping[str, Any]) -> Sample:
    """Return the sample with the logprobs that the client's own `body` asks for, and no more."""
    if sample.logprobs is None:
        return sample
    return replace(sample, logprobs=_as_asked(sample.logprobs, body))


def delta_as_asked(delta: Delta, body: Mapping[str, Any]) -> Delta:
    """Return the delta with the logprobs that the client's own `body` asks for, and no more."""
    if delta.choice.get("logprobs") is None:
        return delta
    choice = {**delta.choice, "logprobs": _as_asked(delta.choice["logprobs"], body)}
    return replace(delta, choice=choice)


def _as_asked(logprobs: Mapping[str, Any], body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not body.get("logprobs"):
        return None
    top = body.get("top_logprobs") or 0
    tokens = logprobs.get("content") or ()
    content = [{**entry, "top_logprobs": (entry.get("top_logprobs") or [])[:top]} for entry in tokens]
    return {**logprobs, "content": content}
