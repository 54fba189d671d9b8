"""The events of a run, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.errors import UpstreamError
from policies.types import SamplingRequest
from scorers.types import Sample, VoteResult

__all__ = [
    "Aside",
    "Delta",
    "Enforced",
    "Event",
    "FailedSample",
    "Finished",
    "FinishedSample",
    "Progress",
    "RunResult",
    "SampleCounts",
    "Status",
    "TokenCounts",
]

Status = Literal["finished", "truncated", "unanswered", "failed", "aborted"]


Enforced = Literal["native", "forced", "prompt", "none"]
"""Who enforces a thinking limit: the engine, the gateway, nobody (a prompt asks for it), or no limit."""


@dataclass(slots=True)
class Delta:
    """New text of one sample.

    `event` and `choice` are the upstream event, for its other fields; `choice` is empty where it has no other
    fields. In a request that asks for nothing it is always there, also of an event without new text.
    """

    index: int
    reasoning: str
    content: str
    event: Mapping[str, Any]
    choice: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Aside:
    """An upstream event that belongs to no choice, such as one with usage alone.

    Only a request that asks for nothing has asides: they go to the client as they came.
    """

    event: Mapping[str, Any]


@dataclass(slots=True)
class TokenCounts:
    """Tokens of one sample so far, readable while it runs.

    `prompt` is the first upstream request's, `upstream_prompt` the sum over all of them.
    `lowest_confidence` is the lowest of any window so far, `confidence` that of the whole sample. Short
    samples have only the latter, and both are None without logprobs.
    """

    completion: int = 0
    reasoning: int = 0
    prompt: int = 0
    upstream_prompt: int = 0
    estimated: bool = False
    lowest_confidence: float | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class FinishedSample:
    """A finished sample, and what came with it.

    `enforced` says who kept its limit: the engine ("native"), or the gateway ("forced"). `envelope` holds the
    upstream reply's other top-level fields. `usage` is the engine's own, where the sample was one request's
    only choice. `limit_kept` says whether the engine was seen to keep the limit itself (None: not seen).
    `notes` say what the gateway did with the sample's text.
    """

    sample: Sample
    counts: TokenCounts
    enforced: Enforced = "none"
    envelope: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, Any] = field(default_factory=dict)
    limit_kept: bool | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FailedSample:
    """A sample that shares its upstream request with others and has failed, while these go on."""

    index: int
    error: UpstreamError
    counts: TokenCounts


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """How many samples ended in which way. `launched` counts every sample that the upstream was asked for."""

    asked: int
    launched: int = 0
    finished: int = 0
    truncated: int = 0
    unanswered: int = 0
    aborted: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """The end of one sample, and how the vote stands now."""

    index: int
    status: Status
    answer: str | None
    sample: Sample | None
    counts: SampleCounts
    vote: VoteResult


@dataclass(frozen=True, slots=True)
class RunResult:
    """What comes back of a run, with its cost.

    `chosen` are the samples to return, best first; `samples` are all that finished. `generated` and
    `reasoning` count every generated token, aborted samples included. `prompt` is one sample's prompt,
    `upstream_prompt` what the upstream read altogether. `vote` is the vote's result; `method` and `scorer`
    say how it came about, and `scores` are the scorer's weights by sample index, where it had an opinion.
    `scorer_tokens` is what scorers have read and written. `usage` is the engine's own, where there was only
    one plain request. `reply` is the engine's whole body without failed choices, where the request asked for
    nothing and was not streamed; `headers` are those of the engine that a client should see.
    """

    chosen: tuple[Sample, ...]
    samples: tuple[Sample, ...]
    counts: SampleCounts
    sampling: SamplingRequest
    vote: VoteResult | None = None
    method: str = ""
    scorer: str = "none"
    scorer_tokens: int = 0
    generated: int = 0
    reasoning: int = 0
    prompt: int = 0
    upstream_prompt: int = 0
    saved: int = 0
    estimated: bool = False
    seconds: float = 0.0
    stop: str = "none"
    enforced: Enforced = "none"
    limit: int | None = None
    notes: tuple[str, ...] = ()
    scores: Mapping[int, float] = field(default_factory=dict)
    trace: tuple[Mapping[str, Any], ...] = ()
    envelope: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[int, str] = field(default_factory=dict)
    """The upstream's name for the model of each sample, by the sample's index."""
    usage: Mapping[str, Any] = field(default_factory=dict)
    reply: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every run: its result."""

    result: RunResult


Event = Delta | Aside | Progress | Finished
