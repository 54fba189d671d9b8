"""Takes the vote over finished samples. Serving and replay share this one way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policies.stopping import parse_stop
from policies.types import SamplingRequest
from scorers.types import Group, Sample, VoteOptions, VoteResult
from scorers.votes import VOTES

__all__ = ["parse_vote", "take_vote"]


def parse_vote(text: str) -> str:
    """Return `text` if it names a vote. Raise ValueError, with the allowed names, if it does not."""
    if text not in VOTES:
        raise ValueError(f"unknown vote {text!r}; allowed: {', '.join(VOTES)}")
    return text


def take_vote(
    sampling: SamplingRequest,
    groups: Sequence[Group],
    samples: Sequence[Sample],
    scores: Mapping[int, float] | None = None,
    *,
    min_share: float = 0.0,
) -> VoteResult:
    """Return the result of the requested vote over the finished `samples`, in order of finishing.

    `scores` are the scorer's, by sample index. With the stopping rule first-m a tie goes to the
    shortest sample, as in short-m@k.
    """
    shortest_first = parse_stop(sampling.stop) == "first-m"
    options = VoteOptions(scores or {}, min_share, shortest_first)
    return VOTES[parse_vote(sampling.vote)](groups, samples, options)
