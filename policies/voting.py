"""From finished samples to a verdict: the one way, for serving and for replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policies.stopping import parse_stop
from policies.types import SamplingRequest
from scorers.types import Group, Sample, VoteOptions, VoteResult
from scorers.votes import VOTES

__all__ = ["decide", "parse_vote"]


def parse_vote(text: str) -> str:
    """`text`, if it names a vote; else ValueError, listing what is allowed."""
    if text not in VOTES:
        raise ValueError(f"unknown vote {text!r}; allowed: {', '.join(VOTES)}")
    return text


def decide(
    sampling: SamplingRequest,
    groups: Sequence[Group],
    samples: Sequence[Sample],
    scores: Mapping[int, float] | None = None,
    *,
    min_share: float = 0.0,
) -> VoteResult:
    """The verdict of the budget's vote over what has finished, `samples` in order of finishing.

    `scores` are the scorer's, by sample index. Where the first m decide, ties go to the
    shortest sample, as short-m@k has it.
    """
    shortest_first = parse_stop(sampling.stop) == "first-m"
    return VOTES[parse_vote(sampling.vote)](
        groups, samples, VoteOptions(scores or {}, min_share, shortest_first)
    )
