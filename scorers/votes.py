"""The votes: one function each; to add one, write it here and name it in `VOTES` at the foot.

Every vote is pure and deterministic: a tie goes to what was seen first. Scores come in the
`Ballot`; a sample on which the scorer had no opinion counts as the mean of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import fsum, inf
from types import MappingProxyType

from scorers.types import Ballot, Group, Sample, Verdict, Vote

__all__ = ["VOTES", "best", "majority", "weighted"]

PLAIN = Ballot()


def majority(groups: Sequence[Group], samples: Sequence[Sample], ballot: Ballot = PLAIN) -> Verdict:
    """The class with most samples (self-consistency, Wang et al. 2022)."""
    return _verdict(_weigh(groups, lambda group: len(group.members)), samples, ballot)


def weighted(groups: Sequence[Group], samples: Sequence[Sample], ballot: Ballot = PLAIN) -> Verdict:
    """The class with the largest sum of scores; without scores, the classes' own weights count."""
    if not ballot.scores:
        return _verdict(groups, samples, ballot)
    score = _scores(groups, ballot)
    return _verdict(_weigh(groups, lambda group: fsum(score[i] for i in group.members)), samples, ballot)


def best(groups: Sequence[Group], samples: Sequence[Sample], ballot: Ballot = PLAIN) -> Verdict:
    """The sample with the highest score (best-of-N); equal scores go to the more frequent answer."""
    counted = majority(groups, samples, ballot)
    return _elect(counted, sorted(counted.ranking, key=lambda i: -ballot.scores.get(i, -inf)), ballot)


def _scores(groups: Sequence[Group], ballot: Ballot) -> dict[int, float]:
    """The score of every votable sample, the mean of the known ones where the scorer had no opinion."""
    votable = [i for group in groups for i in group.members]
    known = [ballot.scores[i] for i in votable if i in ballot.scores]
    neutral = fsum(known) / len(known) if known else 1.0
    return {i: ballot.scores.get(i, neutral) for i in votable}


def _weigh(groups: Sequence[Group], weight: Callable[[Group], float]) -> list[Group]:
    return [replace(group, weight=float(weight(group))) for group in groups]


def _verdict(groups: Sequence[Group], samples: Sequence[Sample], ballot: Ballot) -> Verdict:
    """Elect from the heaviest class its best-scored member, else the first seen."""
    seniority = {
        sample.index: (sample.usage.completion if ballot.shortest_first else 0, position)
        for position, sample in enumerate(samples)
    }
    ordered = sorted(groups, key=lambda group: (-group.weight, min(seniority[i] for i in group.members)))
    ranking = [
        i
        for group in ordered
        for i in sorted(group.members, key=lambda i: (-ballot.scores.get(i, -inf), seniority[i]))
    ]
    return _elect(Verdict(None, (), 0.0, tuple(ordered)), ranking, ballot)


def _elect(tally: Verdict, ranking: Sequence[int], ballot: Ballot) -> Verdict:
    """The tally's verdict with the head of `ranking` as its winner."""
    if not ranking:
        return replace(tally, abstained=ballot.min_share > 0, reason="no sample has an answer that counts")
    total = fsum(group.weight for group in tally.groups)
    won = next(group for group in tally.groups if ranking[0] in group.members)
    share = won.weight / total if total > 0 else 0.0
    abstained = share < ballot.min_share
    reason = f"share {share:.2f} is under the floor of {ballot.min_share:.2f}" if abstained else ""
    return Verdict(ranking[0], tuple(ranking), share, tally.groups, abstained, reason)


VOTES: Mapping[str, Vote] = MappingProxyType(
    {
        "majority": majority,
        "weighted": weighted,
        "best": best,
    }
)
