"""The votes, one function each.

To add a vote: write one function here, and add one line to `VOTES` at the end of this file. If it needs
a scorer, add its name to `SCORED_VOTES` too.

Every vote is pure and deterministic: the first seen wins a tie. Scores come in the `VoteOptions`. A
sample on which the scorer has no opinion counts as the mean of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, groupby
from math import ceil, fsum
from types import MappingProxyType

from rapidfuzz.distance import Indel

from scorers.grouping import singleton_groups
from scorers.types import Group, Sample, Vote, VoteOptions, VoteResult

__all__ = [
    "SCORED_VOTES",
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

NO_OPTIONS = VoteOptions()

MAX_WORDS = 2_000
"""Words of a text that a comparison reads."""


def majority(
    groups: Sequence[Group], samples: Sequence[Sample], options: VoteOptions = NO_OPTIONS
) -> VoteResult:
    """Pick the group with the most samples (self-consistency, Wang et al. 2022)."""
    return _elect_heaviest(_reweight(groups, lambda group: len(group.members)), samples, options)


def weighted(
    groups: Sequence[Group], samples: Sequence[Sample], options: VoteOptions = NO_OPTIONS
) -> VoteResult:
    """Pick the group with the largest sum of scores; without scores, the groups' own weights count."""
    if not options.scores:
        return _elect_heaviest(groups, samples, options)
    score = _scores_or_mean(groups, options)
    return _elect_heaviest(
        _reweight(groups, lambda group: fsum(score[i] for i in group.members)), samples, options
    )


def best(groups: Sequence[Group], samples: Sequence[Sample], options: VoteOptions = NO_OPTIONS) -> VoteResult:
    """Pick the sample with the highest score (best-of-N); the more frequent answer wins a tie."""
    by_count, score = majority(groups, samples, options), _scores_or_mean(groups, options)
    return _elect_first(by_count, sorted(by_count.ranking, key=lambda i: -score[i]), options)


def best_of_majority(
    groups: Sequence[Group],
    samples: Sequence[Sample],
    options: VoteOptions = NO_OPTIONS,
    *,
    frequent: float = 0.5,
) -> VoteResult:
    """Pick the highest score among the frequent answers (Best-of-Majority, Di et al. 2025).

    A group is frequent with at least `frequent` times the leader's samples, so there is always
    one. The rare answers, which a weak scorer may overrate, rank behind.
    """
    by_count = majority(groups, samples, options)
    if not by_count.groups:
        return by_count
    least = frequent * by_count.groups[0].weight
    rare = {i for group in by_count.groups if group.weight < least for i in group.members}
    score = _scores_or_mean(groups, options)
    ranking = sorted(by_count.ranking, key=lambda i: (i in rare, -score[i]))
    return _elect_first(by_count, ranking, options)


def borda(
    groups: Sequence[Group],
    samples: Sequence[Sample],
    options: VoteOptions = NO_OPTIONS,
    *,
    exponent: float = 0.5,
) -> VoteResult:
    """Rank by score and give the r-th of N samples (N - r + 1)^exponent votes (Kang et al. 2025).

    The paper's exponents run from 0.3 at small N to 1.2 at N = 64; 0 is a majority. Equal scores
    share the votes of their ranks, so that the order of finishing does not matter.
    """
    score = _scores_or_mean(groups, options)
    votes: dict[int, float] = {}
    for _, tied in groupby(sorted(score, key=score.__getitem__), key=score.__getitem__):
        members = list(tied)
        ranks = range(len(votes) + 1, len(votes) + len(members) + 1)
        votes |= dict.fromkeys(members, fsum(rank**exponent for rank in ranks) / len(members))
    return _elect_heaviest(
        _reweight(groups, lambda group: fsum(votes[i] for i in group.members)), samples, options
    )


def confidence(
    groups: Sequence[Group],
    samples: Sequence[Sample],
    options: VoteOptions = NO_OPTIONS,
    *,
    keep: float = 0.9,
) -> VoteResult:
    """Sum the scores of the best-scored part `keep` of the samples (DeepConf, Fu et al. 2025).

    The vote is meant for the scores of `scorers.confidence`. The samples below the cut have no
    weight and rank last, but still count as votable. Equal scores stay or go together.
    """
    score = _scores_or_mean(groups, options)
    cut = sorted(score.values(), reverse=True)[ceil(keep * len(score)) - 1] if score else 0.0
    above_cut = {i: value for i, value in score.items() if value >= cut}
    result = _elect_heaviest(
        _reweight(groups, lambda group: fsum(above_cut.get(i, 0.0) for i in group.members)),
        samples,
        options,
    )
    return _elect_first(result, sorted(result.ranking, key=lambda i: i not in above_cut), options)


def overlap(first: str, second: str) -> float:
    """Return F1 of the longest common subsequence of two texts' words (ROUGE-L), in [0, 1]."""
    return similarities([first, second])(0, 1)


def similarities(texts: Sequence[str]) -> Callable[[int, int], float]:
    """Return a function that gives the `overlap` of two of the texts by their indices.

    Each text is split only once. Only its last `MAX_WORDS` words count, which keeps one
    comparison well under a millisecond.
    """
    codes: dict[str, str] = {}
    encoded = [
        "".join(codes.setdefault(word, _character(len(codes))) for word in text.split()[-MAX_WORDS:])
        for text in texts
    ]
    return lambda i, j: Indel.normalized_similarity(encoded[i], encoded[j])


def _character(number: int) -> str:
    """Return the character that encodes a word, so that texts compare as fast as strings."""
    return chr(number + 1 if number < 0xD7FF else number + 0x801)  # no surrogates


def mbr(
    groups: Sequence[Group],
    samples: Sequence[Sample],
    options: VoteOptions = NO_OPTIONS,
    *,
    similarity: Callable[[str, str], float] | None = None,
) -> VoteResult:
    """Pick the sample most similar to the others: minimum Bayes risk, for free text.

    Groups do not matter: every sample with text that was not truncated is votable and a group of
    its own. It weighs its mean similarity to the others, each weighted by its score; that is also
    the `share`. A single sample has similarity 1. A symmetric `similarity` may replace `overlap`.
    N samples take N(N-1)/2 comparisons.
    """
    singletons = singleton_groups(samples)
    texts = [group.answer.raw for group in singletons]
    similarity_at = similarities(texts) if similarity is None else lambda i, j: similarity(texts[i], texts[j])
    score = _scores_or_mean(singletons, options)
    weighted_similarity: dict[int, list[float]] = {i: [] for i in score}
    for first, second in combinations(range(len(singletons)), 2):
        (i,), (j,) = singletons[first].members, singletons[second].members
        value = similarity_at(first, second)
        weighted_similarity[i].append(score[j] * value)
        weighted_similarity[j].append(score[i] * value)

    def centrality(group: Group) -> float:
        (i,) = group.members
        others = fsum(weight for j, weight in score.items() if j != i)
        return fsum(weighted_similarity[i]) / others if others > 0 else 1.0

    result = _elect_heaviest(_reweight(singletons, centrality), samples, options)
    return _apply_floor(replace(result, share=result.groups[0].weight), options) if result.groups else result


def _scores_or_mean(groups: Sequence[Group], options: VoteOptions) -> dict[int, float]:
    """Return the score of every votable sample; without an opinion, the mean of the known scores."""
    votable = [i for group in groups for i in group.members]
    known = [options.scores[i] for i in votable if i in options.scores]
    neutral = fsum(known) / len(known) if known else 1.0
    return {i: options.scores.get(i, neutral) for i in votable}


def _reweight(groups: Sequence[Group], weight: Callable[[Group], float]) -> list[Group]:
    return [replace(group, weight=float(weight(group))) for group in groups]


def _elect_heaviest(groups: Sequence[Group], samples: Sequence[Sample], options: VoteOptions) -> VoteResult:
    """Elect the best-scored member of the heaviest group, else the first seen."""
    seniority = {
        sample.index: (sample.usage.completion if options.shortest_first else 0, position)
        for position, sample in enumerate(samples)
    }
    score = _scores_or_mean(groups, options)
    ordered = sorted(groups, key=lambda group: (-group.weight, min(seniority[i] for i in group.members)))
    ranking = [i for group in ordered for i in sorted(group.members, key=lambda i: (-score[i], seniority[i]))]
    return _elect_first(VoteResult(None, (), 0.0, tuple(ordered)), ranking, options)


def _elect_first(result: VoteResult, ranking: Sequence[int], options: VoteOptions) -> VoteResult:
    """Return the result with the first of `ranking` as its winner."""
    if not ranking:
        return replace(result, abstained=options.min_share > 0, reason="no sample has an answer that counts")
    total = fsum(group.weight for group in result.groups)
    winning_group = next(group for group in result.groups if ranking[0] in group.members)
    share = winning_group.weight / total if total > 0 else 0.0
    return _apply_floor(replace(result, winner=ranking[0], ranking=tuple(ranking), share=share), options)


def _apply_floor(result: VoteResult, options: VoteOptions) -> VoteResult:
    """Return the result, marked as abstained if its share is under the floor; the winner stays."""
    abstained = result.share < options.min_share
    reason = f"share {result.share:.2f} is under the floor of {options.min_share:.2f}" if abstained else ""
    return replace(result, abstained=abstained, reason=reason)


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
"""All votes, by the name in `X-Vote`."""

SCORED_VOTES = frozenset({"weighted", "best", "best-of-majority", "borda"})
"""The votes that need a scorer. Without one they still work, and the client gets a note about it."""
