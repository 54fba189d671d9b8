"""The words that scorers, votes and everything above them share."""

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
    """Tokens of one sample: `prompt` as the engine read it, `completion` with the thinking included.

    `reasoning` is the part of `completion` spent thinking; `estimated` says that the
    engine gave no counts and these are the gateway's own.
    """

    prompt: int = 0
    completion: int = 0
    reasoning: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One finished reply of a model, its thinking and its answer text apart.

    `index` is the order of launch; `finish_reason` is the engine's ("stop", "length",
    "tool_calls", ...); `logprobs` is OpenAI's `choices[].logprobs` as it came; `extra`
    holds every other field of the upstream choice and message, untouched.
    """

    index: int
    content: str
    reasoning: str = ""
    finish_reason: str = "stop"
    usage: Usage = Usage()
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    logprobs: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def truncated(self) -> bool:
        """Whether the reply was cut by a token limit, so that its answer can't be trusted."""
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class Answer:
    """A final answer: `raw` as the model wrote it, `key` its hashable canonical form.

    Two answers with equal keys are one class; unequal keys may still be equivalent.
    """

    raw: str
    key: Hashable


@dataclass(frozen=True, slots=True)
class Group:
    """One class of equal answers; `members` are sample indices in order of finishing."""

    answer: Answer
    members: tuple[int, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class VoteResult:
    """What a vote decided.

    `winner` is the index of the sample to return (None where no sample can be chosen),
    `ranking` all votable samples from best to worst, `share` the winning group's part of
    all weight in [0, 1], `groups` from heaviest to lightest. `abstained` says that the
    margin was under the floor asked for; `reason` says in words why, where there is a why.
    """

    winner: int | None
    ranking: tuple[int, ...]
    share: float
    groups: tuple[Group, ...]
    abstained: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class VoteOptions:
    """What a vote may look at beside the classes.

    `scores` holds each sample's weight in [0, 1] by its index, without the samples on which
    the scorer had no opinion. A winning share under `min_share` is an abstention.
    `shortest_first` gives ties to the sample with the fewest generated tokens, and only
    then to the first to finish.
    """

    scores: Mapping[int, float] = field(default_factory=dict)
    min_share: float = 0.0
    shortest_first: bool = False


class Vote(Protocol):
    """Picks a winner. Pure: grouping has been done, and nothing is asked of anyone."""

    def __call__(
        self, groups: Sequence[Group], samples: Sequence[Sample], ballot: VoteOptions = ...
    ) -> VoteResult:
        """`groups` holds only votable samples' classes; `samples` are all that finished, in that order."""
        ...


class ScorerError(Exception):
    """A scorer could not do its work; the vote goes on without it."""


class ScorerModel(Protocol):
    """What a scorer may ask of a model; the engine hands one in, so that limits and usage count."""

    async def complete(self, messages: Sequence[Mapping[str, Any]], **params: Any) -> Sample:
        """One plain reply; `params` are OpenAI request fields. Raises what the engine raises."""
        ...

    def count(self, tokens: int) -> None:
        """Takes down tokens that a scorer has spent elsewhere than by `complete`."""
        ...


class Scorer(Protocol):
    """Gives each sample a weight in [0, 1], or None where it has no opinion."""

    @property
    def needs_logprobs(self) -> bool:
        """Whether the samples have to come with `logprobs`."""
        ...

    async def score(
        self, messages: Sequence[Mapping[str, Any]], samples: Sequence[Sample], model: ScorerModel
    ) -> list[float | None]:
        """One weight for each sample, in their order. Raises `ScorerError` where it can't."""
        ...
