"""What the engine tells while a request runs, and what it has to tell at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from policies.types import SamplingRequest
from scorers.types import Sample, VoteResult

__all__ = ["Delta", "Enforced", "Event", "Finished", "Progress", "RunResult", "SampleCounts", "Status"]

Status = Literal["finished", "truncated", "unanswered", "failed", "aborted"]


Enforced = Literal["native", "forced", "prompt", "none"]
"""Who keeps a thinking limit: the engine, the gateway, nobody (it is only asked for), or there is none."""


@dataclass(slots=True)
class Delta:
    """New text of one sample.

    `raw` and `choice` are the upstream event, for its other fields; `choice` is empty where
    it has nothing else to say.
    """

    index: int
    reasoning: str
    content: str
    raw: Mapping[str, Any]
    choice: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """How many samples came to what. `launched` counts every one that was asked of the upstream."""

    asked: int
    launched: int = 0
    finished: int = 0
    truncated: int = 0
    unanswered: int = 0
    aborted: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """One sample has come to its end; how the vote stands now."""

    index: int
    status: Status
    answer: str | None
    sample: Sample | None
    counts: SampleCounts
    verdict: VoteResult


@dataclass(frozen=True, slots=True)
class RunResult:
    """A request's end.

    `chosen` are the samples to return, best first; `drawn` all that finished; `generated`
    and `reasoning` count every token generated, aborted samples included; `prompt` is one
    sample's prompt and `upstream_prompt` what the upstream read altogether; `method` and
    `scorer` are how the verdict came about, `scores` the scorer's weights by sample index,
    where it had an opinion; `scorer_tokens` is what scorers have read and written; `usage`
    is the engine's own, where all there is to count was one plain request.
    """

    chosen: tuple[Sample, ...]
    drawn: tuple[Sample, ...]
    counts: SampleCounts
    sampling: SamplingRequest
    verdict: VoteResult | None = None
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


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every run."""

    result: RunResult


Event = Delta | Progress | Finished
