"""The words of a request's compute: what was asked, what has happened, what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from scorers.types import Group

__all__ = ["Launch", "Policy", "RunLimits", "RunningSample", "SamplingRequest", "Step", "VoteState"]


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Hard ends for a whole request: generated tokens over all samples, and seconds. None: no limit."""

    max_tokens: int | None = None
    max_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SamplingRequest:
    """What a client asked for, resolved.

    `effort` is the level's name, or None where nothing or a bare number was said;
    `thinking_tokens` the hard limit on thinking (None: no limit); `sources` maps each
    part ("effort", "samples", ...) to the carrier that said it ("header", "body",
    "model", "default"). `choices` is how many ranked samples go back to the client, so
    that no rule stops before there are as many.
    """

    level: str | None = None
    thinking_limit: int | None = None
    samples: int = 1
    vote: str = "majority"
    scorer: str = "none"
    stop: str = "adaptive"
    limits: RunLimits = RunLimits()
    sources: Mapping[str, str] = field(default_factory=dict)
    window: int = 5
    threshold: float = 0.95
    choices: int = 1


@dataclass(frozen=True, slots=True)
class RunningSample:
    """One sample in flight: tokens so far, and its lowest windowed confidence where logprobs are known."""

    index: int
    tokens: int = 0
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class VoteState:
    """Everything a policy may look at.

    `groups` are the classes so far, from heaviest to lightest, ties by the earlier first
    member; `order` lists the finished samples (voting or not) in order of finishing;
    `lengths` gives the generated tokens of each finished sample and `confidences` its lowest
    windowed confidence, where logprobs are known; `lost` counts the tokens of samples that
    were aborted or failed; `elapsed` is in seconds.
    """

    sampling: SamplingRequest
    groups: tuple[Group, ...] = ()
    streams: tuple[RunningSample, ...] = ()
    failures: int = 0
    elapsed: float = 0.0
    launched: int = 0
    order: tuple[int, ...] = ()
    lengths: Mapping[int, int] = field(default_factory=dict)
    confidences: Mapping[int, float] = field(default_factory=dict)
    lost: int = 0

    @property
    def votes(self) -> int:
        """How many samples have an answer that counts."""
        return sum(len(group.members) for group in self.groups)


@dataclass(frozen=True, slots=True)
class Launch:
    """Draw `count` more samples like this."""

    sampling: SamplingRequest
    count: int


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now: launch, abort samples by index, look again after so many seconds, or finish.

    With `done`, `abort` names every sample still in flight and `reason` says in a word or
    two what ended the drawing.
    """

    launch: tuple[Launch, ...] = ()
    abort: frozenset[int] = frozenset()
    wake_after: float | None = None
    done: bool = False
    reason: str = ""


class Policy(Protocol):
    """Decides how many samples to draw and when enough is enough. Pure: same state, same step."""

    def step(self, state: VoteState) -> Step:
        """Called at the start, on every event and on every tick asked for."""
        ...
