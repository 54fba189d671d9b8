"""The votes: one function each; to add one, write it here and name it in `VOTES` at the foot.

Every vote is pure and deterministic: a tie goes to what was seen first. Scores come in the
`VoteOptions`; a sample on which the scorer had no opinion counts as the mean of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, groupby
from math import ceil, fsum
from types import MappingProxyType

from rapidfuzz.distance import Indel

from scorers.grouping import each_alone
from scorers.types import Group, Sample, Vote, VoteOptions, VoteResult

__all__ = [
    "VOTES",
    "best",
    "best_of_majority",
    "borda",
    "confidence",
    "majority",
    "mbr",
    "overlap",
    "similarities",
    "weighted",
]

PLAIN = VoteOptions()

MAX_WORDS = 2_000
"""Words of a text that are compared."""


def majority(groups: Sequence[Group], samples: Sequence[Sample], ballot: VoteOptions = PLAIN) -> VoteResult:
    """The class with most samples (self-consistency, Wang et al. 2022)."""
    return _verdict(_weigh(groups, lambda group: len(group.members)), samples, ballot)


def weighted(groups: Sequence[Group], samples: Sequence[Sample], ballot: VoteOptions = PLAIN) -> VoteResult:
    """The class with the largest sum of scores; without scores, the classes' own weights count."""
    if not ballot.scores:
        return _verdict(groups, samples, ballot)
    score = _scores(groups, ballot)
    return _verdict(_weigh(groups, lambda group: fsum(score[i] for i in group.members)), samples, ballot)


def best(groups: Sequence[Group], samples: Sequence[Sample], ballot: VoteOptions = PLAIN) -> VoteResult:
    """The sample with the highest score (best-of-N); equal scores go to the more frequent answer."""
    counted, score = majority(groups, samples, ballot), _scores(groups, ballot)
    return _elect(counted, sorted(counted.ranking, key=lambda i: -score[i]), ballot)


def best_of_majority(
    groups: Sequence[Group], samples: Sequence[Sample], ballot: VoteOptions = PLAIN, *, frequent: float = 0.5
) -> VoteResult:
    """The highest score among the frequent answers (Best-of-Majority, Di et al. 2025).

    A class is frequent with at least `frequent` times the leader's samples, so there is
    always one; the rare answers, which a weak scorer may love, rank behind.
    """
    counted = majority(groups, samples, ballot)
    if not counted.groups:
        return counted
    least = frequent * counted.groups[0].weight
    rare = {i for group in counted.groups if group.weight < least for i in group.members}
    score = _scores(groups, ballot)
    ranking = sorted(counted.ranking, key=lambda i: (i in rare, -score[i]))
    return _elect(counted, ranking, ballot)


def borda(
    groups: Sequence[Group], samples: Sequence[Sample], ballot: VoteOptions = PLAIN, *, exponent: float = 0.5
) -> VoteResult:
    """Ranks by score and gives the r-th of N samples (N - r + 1)^exponent votes (Kang et al. 2025).

    The paper's exponents run from 0.3 at small N to 1.2 at N = 64; 0 is a majority. Equal
    scores share the votes of their ranks, so that the order of finishing doesn't matter.
    """
    score = _scores(groups, ballot)
    votes: dict[int, float] = {}
    for _, tied in groupby(sorted(score, key=score.__getitem__), key=score.__getitem__):
        members = list(tied)
        ranks = range(len(votes) + 1, len(votes) + len(members) + 1)
        votes |= dict.fromkeys(members, fsum(rank**exponent for rank in ranks) / len(members))
    return _verdict(_weigh(groups, lambda group: fsum(votes[i] for i in group.members)), samples, ballot)


def confidence(
    groups: Sequence[Group], samples: Sequence[Sample], ballot: VoteOptions = PLAIN, *, keep: float = 0.9
) -> VoteResult:
    """Sums scores over the best-scored part `keep` of the samples (DeepConf, Fu et al. 2025).

    The scores are meant to be `scorers.confidence`'s. The samples left out have no weight
    and rank last, but still count as votable. Equal scores are kept or left out together.
    """
    score = _scores(groups, ballot)
    cut = sorted(score.values(), reverse=True)[ceil(keep * len(score)) - 1] if score else 0.0
    kept = {i: value for i, value in score.items() if value >= cut}
    verdict = _verdict(
        _weigh(groups, lambda group: fsum(kept.get(i, 0.0) for i in group.members)), samples, ballot
    )
    return _elect(verdict, sorted(verdict.ranking, key=lambda i: i not in kept), ballot)


def overlap(one: str, other: str) -> float:
    """How much two texts share, in [0, 1]: F1 of their longest common subsequence of words (ROUGE-L)."""
    return similarities([one, other])(0, 1)


def similarities(texts: Sequence[str]) -> Callable[[int, int], float]:
    """`overlap` of any two of the texts, by their places; each text is taken apart only once.

    Only the last `MAX_WORDS` words of a text are compared, which bounds one comparison to
    well under a millisecond.
    """
    codes: dict[str, str] = {}
    spelled = [
        "".join(codes.setdefault(word, _character(len(codes))) for word in text.split()[-MAX_WORDS:])
        for text in texts
    ]
    return lambda i, j: Indel.normalized_similarity(spelled[i], spelled[j])


def _character(number: int) -> str:
    """The character that stands for a word, so that texts compare as fast as strings do."""
    return chr(number + 1 if number < 0xD7FF else number + 0x801)  # no surrogates


def mbr(
    groups: Sequence[Group],
    samples: Sequence[Sample],
    ballot: VoteOptions = PLAIN,
    *,
    similarity: Callable[[str, str], float] | None = None,
) -> VoteResult:
    """The sample most similar to the others: minimum Bayes risk, for free text.

    Classes don't matter: every sample with text that was not truncated is votable and a
    class of its own, weighing its mean similarity to the others (each weighted by its
    score), which is also the `share`. A sample alone is as similar as can be. A symmetric
    `similarity` may stand in for `overlap`; N samples take N(N-1)/2 comparisons.
    """
    alone = each_alone(samples)
    texts = [group.answer.raw for group in alone]
    alike = similarities(texts) if similarity is None else lambda i, j: similarity(texts[i], texts[j])
    score = _scores(alone, ballot)
    close: dict[int, list[float]] = {i: [] for i in score}
    for one, other in combinations(range(len(alone)), 2):
        (i,), (j,) = alone[one].members, alone[other].members
        value = alike(one, other)
        close[i].append(score[j] * value)
        close[j].append(score[i] * value)

    def centrality(group: Group) -> float:
        (i,) = group.members
        others = fsum(weight for j, weight in score.items() if j != i)
        return fsum(close[i]) / others if others > 0 else 1.0

    verdict = _verdict(_weigh(alone, centrality), samples, ballot)
    return _abstain(replace(verdict, share=verdict.groups[0].weight), ballot) if verdict.groups else verdict


def _scores(groups: Sequence[Group], ballot: VoteOptions) -> dict[int, float]:
    """The score of every votable sample, the mean of the known ones where the scorer had no opinion."""
    votable = [i for group in groups for i in group.members]
    known = [ballot.scores[i] for i in votable if i in ballot.scores]
    neutral = fsum(known) / len(known) if known else 1.0
    return {i: ballot.scores.get(i, neutral) for i in votable}


def _weigh(groups: Sequence[Group], weight: Callable[[Group], float]) -> list[Group]:
    return [replace(group, weight=float(weight(group))) for group in groups]


def _verdict(groups: Sequence[Group], samples: Sequence[Sample], ballot: VoteOptions) -> VoteResult:
    """Elect from the heaviest class its best-scored member, else the first seen."""
    seniority = {
        sample.index: (sample.usage.completion if ballot.shortest_first else 0, position)
        for position, sample in enumerate(samples)
    }
    score = _scores(groups, ballot)
    ordered = sorted(groups, key=lambda group: (-group.weight, min(seniority[i] for i in group.members)))
    ranking = [i for group in ordered for i in sorted(group.members, key=lambda i: (-score[i], seniority[i]))]
    return _elect(VoteResult(None, (), 0.0, tuple(ordered)), ranking, ballot)


def _elect(tally: VoteResult, ranking: Sequence[int], ballot: VoteOptions) -> VoteResult:
    """The tally's verdict with the head of `ranking` as its winner."""
    if not ranking:
        return replace(tally, abstained=ballot.min_share > 0, reason="no sample has an answer that counts")
    total = fsum(group.weight for group in tally.groups)
    won = next(group for group in tally.groups if ranking[0] in group.members)
    share = won.weight / total if total > 0 else 0.0
    return _abstain(replace(tally, winner=ranking[0], ranking=tuple(ranking), share=share), ballot)


def _abstain(verdict: VoteResult, ballot: VoteOptions) -> VoteResult:
    """The verdict, marked where its share is under the floor; the winner is named all the same."""
    abstained = verdict.share < ballot.min_share
    reason = f"share {verdict.share:.2f} is under the floor of {ballot.min_share:.2f}" if abstained else ""
    return replace(verdict, abstained=abstained, reason=reason)


VOTES: Mapping[str, Vote] = MappingProxyType(
    {
        "majority": majority,
        "weighted": weighted,
        "best": best,
        "best-of-majority": best_of_majority,
        "borda": borda,
        "confidence": confidence,
        "mbr": mbr,
    }
)
