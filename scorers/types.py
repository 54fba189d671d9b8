"""The types that scorers and votes share with everything above them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = [
    "Answer",
    "Group",
    "Sample",
    "Scorer",
    "ScorerError",
    "ScorerModel",
    "Usage",
    "Vote",
    "VoteOptions",
    "VoteResult",
]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one sample: `prompt` as the engine read it, and `completion` with the thinking.

    `reasoning` is the part of `completion` that is thinking. `estimated` says that the engine gave
    no counts, and that these are the gateway's own.
    """

    prompt: int = 0
    completion: int = 0
    reasoning: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One finished reply of a model, with its thinking apart from its answer text.

    `index` is the order of launch. `finish_reason` is the engine's ("stop", "length",
    "tool_calls", ...). `logprobs` is OpenAI's `choices[].logprobs` as received. `extra` holds every
    other field of the upstream choice and message, unchanged. `truncated`: a token limit cut the
    reply, so that its answer can't be trusted.
    """

    index: int
    content: str
    reasoning: str = ""
    finish_reason: str = "stop"
    usage: Usage = Usage()
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    logprobs: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    truncated: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "truncated", self.finish_reason == "length")


@dataclass(frozen=True, slots=True)
class Answer:
    """A final answer: `raw` as the model wrote it, and `key`, its hashable canonical form.

    Answers with equal keys belong to one group; answers with unequal keys may still be equivalent.
    """

    raw: str
    key: Hashable


@dataclass(frozen=True, slots=True)
class Group:
    """Samples with equal answers; `members` holds their indices in order of finishing."""

    answer: Answer
    members: tuple[int, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class VoteResult:
    """The result of a vote.

    `winner` is the index of the sample to return (None: no sample can be chosen). `ranking` lists
    all votable samples from best to worst. `share` is the winning group's part of all weight, in
    [0, 1]. `groups` run from heaviest to lightest. `abstained` says that the share was under the
    required floor, and `reason` says in words why the vote abstained or has no winner.
    """

    winner: int | None
    ranking: tuple[int, ...]
    share: float
    groups: tuple[Group, ...]
    abstained: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class VoteOptions:
    """The settings of a vote, and the scores.

    `scores` holds each sample's weight in [0, 1] by its index, without the samples on which the
    scorer has no opinion. A winning share under `min_share` is an abstention. With
    `shortest_first` a tie goes to the sample with the fewest generated tokens, and only then to
    the first to finish.
    """

    scores: Mapping[int, float] = field(default_factory=dict)
    min_share: float = 0.0
    shortest_first: bool = False


class Vote(Protocol):
    """Picks a winner among groups. Pure: it asks no model, and the grouping is done."""

    def __call__(
        self, groups: Sequence[Group], samples: Sequence[Sample], options: VoteOptions = ...
    ) -> VoteResult:
        """Return the result. `groups` hold the votable samples; `samples` are all finished ones, in order."""
        ...


class ScorerError(Exception):
    """A scorer failed; the vote goes on without it."""


class ScorerModel(Protocol):
    """The model that a scorer may ask. The caller hands it in, so that limits and usage count."""

    async def complete(self, messages: Sequence[Mapping[str, Any]], **params: Any) -> Sample:
        """Return one plain reply; `params` are OpenAI request fields. Raises the upstream's errors."""
        ...

    def count(self, tokens: int) -> None:
        """Count tokens that a scorer spent outside `complete`."""
        ...


class Scorer(Protocol):
    """Gives each sample a weight in [0, 1], or None for no opinion."""

    @property
    def needs_logprobs(self) -> bool:
        """Return whether the samples must come with `logprobs`."""
        ...

    async def score(
        self, messages: Sequence[Mapping[str, Any]], samples: Sequence[Sample], model: ScorerModel
    ) -> list[float | None]:
        """Return one weight for each sample, in their order. Raises `ScorerError` on failure."""
        ...
