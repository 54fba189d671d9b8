"""The winner of every vote."""

import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.grouping import Grouper, singleton_groups
from scorers.types import Answer, Group, Sample, Usage, Vote, VoteOptions, VoteResult
from scorers.votes import (
    MAX_WORDS,
    VOTES,
    best,
    best_of_majority,
    borda,
    confidence,
    majority,
    mbr,
    overlap,
    weighted,
)


def finished(
    answers: Sequence[str], lengths: Mapping[int, int] | None = None
) -> tuple[tuple[Group, ...], list[Sample]]:
    """Return samples that gave these answers ("" for none), in order of finishing, and their groups."""
    grouper = Grouper()
    samples = [
        Sample(i, text, usage=Usage(completion=(lengths or {}).get(i, 0))) for i, text in enumerate(answers)
    ]
    for sample in samples:
        grouper.add(sample, Answer(sample.content, sample.content) if sample.content else None)
    return grouper.groups, samples


def elect(
    vote: Vote, answers: Sequence[str], scores: Sequence[float] | None = None, **options: float
) -> VoteResult:
    """Return the result for these answers with these scores."""
    groups, samples = finished(answers)
    return vote(groups, samples, VoteOptions(dict(enumerate(scores or [])), **options))  # type: ignore[arg-type]


def test_majority() -> None:
    """The most frequent answer wins, and its first sample is returned."""
    result = elect(majority, ["7", "8", "8", "9"])
    assert (result.winner, result.share) == (1, 0.5)
    assert result.ranking == (1, 2, 0, 3)
    assert [group.weight for group in result.groups] == [2.0, 1.0, 1.0]


def test_majority_ignores_the_weights_of_groups() -> None:
    """A majority counts samples, even if a scorer weighs them."""
    groups = (Group(Answer("8", 8), (1,), 5.0), Group(Answer("7", 7), (0, 2), 0.1))
    assert majority(groups, finished(["7", "8", "7"])[1]).winner == 0


def test_first_seen_wins_a_tie() -> None:
    """Of two equally frequent answers, the first to finish wins, whatever its index."""
    groups, samples = finished(["7", "8"])
    assert majority(groups, samples).winner == 0
    assert majority(groups, samples[::-1]).winner == 1


def test_shortest_first_breaks_a_tie() -> None:
    """With `shortest_first` a tie goes to the answer with the shortest sample."""
    groups, samples = finished(["7", "8", "9"], {0: 90, 1: 50, 2: 70})
    assert majority(groups, samples, VoteOptions(shortest_first=True)).ranking == (1, 2, 0)


def test_best_scored_member_is_returned() -> None:
    """Scores choose within the winning group, even if a majority chose the group."""
    assert elect(majority, ["7", "8", "8"], [0.9, 0.1, 0.3]).winner == 2


def test_no_answer_is_no_vote() -> None:
    """Samples without an answer are no group and never win."""
    result = elect(majority, ["", "", "7"])
    assert (result.winner, result.ranking, result.share) == (2, (2,), 1.0)


@pytest.mark.parametrize("name", VOTES)
def test_no_votable_sample_has_no_winner(name: str) -> None:
    """Without a votable sample no vote has a winner, and each says why."""
    result = VOTES[name]((), [Sample(0, "", finish_reason="length")], VoteOptions(min_share=0.1))
    assert (result.winner, result.ranking, result.abstained) == (None, (), True)
    assert result.reason == "no sample has an answer that counts"


def test_a_share_under_the_floor_abstains() -> None:
    """A share under `min_share` abstains with a reason, but still names the winner."""
    result = elect(majority, ["7", "7", "8", "9", "5"], min_share=0.5)
    assert (result.winner, result.abstained) == (0, True)
    assert result.reason == "share 0.40 is under the floor of 0.50"
    assert not elect(majority, ["7", "7", "8", "9"], min_share=0.5).abstained


def test_weighted() -> None:
    """One sure sample outweighs two unsure ones."""
    result = elect(weighted, ["7", "7", "8"], [0.2, 0.3, 0.9])
    assert result.winner == 2
    assert result.share == pytest.approx(0.9 / 1.4)


def test_no_opinion_counts_as_the_mean() -> None:
    """A sample without a score weighs as much as the others on average."""
    groups, samples = finished(["7", "8", "8"])
    result = weighted(groups, samples, VoteOptions({0: 0.5, 1: 0.25}))
    assert [group.weight for group in result.groups] == [0.625, 0.5]
    assert result.ranking == (2, 1, 0)


def test_weighted_without_scores_uses_the_groups_weights() -> None:
    """Weights from grouping count if the options have no scores."""
    groups = (Group(Answer("8", 8), (1,), 0.9), Group(Answer("7", 7), (0, 2), 0.5))
    assert weighted(groups, finished(["7", "8", "7"])[1]).winner == 1


def test_best() -> None:
    """The highest score wins, however rare its answer; the ranking follows the scores."""
    result = elect(best, ["7", "7", "8"], [0.5, 0.6, 0.9])
    assert result.ranking == (2, 1, 0)
    assert result.share == pytest.approx(1 / 3)


def test_an_unscored_member_of_the_winning_group_ranks_in_the_middle() -> None:
    """A sample without a score ranks behind a high score and before a low one."""
    groups, samples = finished(["7", "7", "7"])
    assert weighted(groups, samples, VoteOptions({0: 0.1, 2: 0.9})).ranking == (2, 1, 0)


@pytest.mark.parametrize("vote", [best, best_of_majority])
def test_a_missing_score_is_no_low_score(vote: Vote) -> None:
    """A sample without a score counts as the mean: behind a high score, before a low one."""
    groups, samples = finished(["7", "8", "7", "9"])
    assert vote(groups, samples, VoteOptions({1: 0.1})).winner == 0
    assert vote(groups, samples, VoteOptions({1: 0.1, 3: 0.9})).ranking == (3, 0, 2, 1)


def test_best_of_free_text() -> None:
    """Over free text each complete sample is its own group, and the highest score wins."""
    samples = [
        Sample(0, "So it goes."),
        Sample(1, "And so", finish_reason="length"),
        Sample(2, "Here we are."),
    ]
    assert best(singleton_groups(samples), samples, VoteOptions({0: 0.2, 1: 0.9, 2: 0.7})).ranking == (2, 0)


def test_best_without_scores_is_a_majority() -> None:
    """Without scores the more frequent answer wins."""
    assert elect(best, ["7", "8", "8"]).winner == 1


def test_best_of_majority() -> None:
    """The highest score wins among the frequent answers; the rare ones rank behind."""
    result = elect(best_of_majority, ["7", "7", "7", "8", "8", "9"], [0.1, 0.2, 0.3, 0.4, 0.5, 0.9])
    assert result.ranking == (4, 3, 2, 1, 0, 5)


def test_borda() -> None:
    """Ranks become votes: at exponent 1 the best of four gives 4, the others 3, 2 and 1."""
    answers, scores = ["7", "8", "8", "7"], [0.9, 0.8, 0.7, 0.1]
    groups, samples = finished(answers)
    result = borda(groups, samples, VoteOptions(dict(enumerate(scores))), exponent=1.0)
    assert {group.answer.raw: group.weight for group in result.groups} == {"7": 5.0, "8": 5.0}
    assert borda(groups, samples, VoteOptions(dict(enumerate(scores))), exponent=3.0).winner == 0
    assert elect(borda, ["7", "8", "8"]).winner == 1


def test_borda_shares_the_ranks_of_a_tie() -> None:
    """Two samples that tie for second place share the votes of second and third place."""
    groups, samples = finished(["7", "8", "9"])
    result = borda(groups, samples, VoteOptions({0: 0.9, 1: 0.5, 2: 0.5}), exponent=1.0)
    assert [group.weight for group in result.groups] == [3.0, 1.5, 1.5]


def test_confidence_keeps_the_surest() -> None:
    """The least sure samples do not count, so their number can't win."""
    answers, scores = ["7", "7", "7", "7", "7", "8"], [0.2, 0.2, 0.2, 0.2, 0.2, 0.9]
    groups, samples = finished(answers)
    assert confidence(groups, samples, VoteOptions(dict(enumerate(scores))), keep=1.0).winner == 0
    result = confidence(groups, samples, VoteOptions(dict(enumerate(scores))), keep=0.1)
    assert (result.winner, result.share, len(result.ranking)) == (5, 1.0, 6)


def test_mbr() -> None:
    """The text most like the others wins, without any declared answer."""
    texts = ["the cat sat on the mat", "one dog ran", "the cat sat on a mat", "the cat lay on the mat"]
    samples = [Sample(i, text) for i, text in enumerate(texts)]
    result = mbr((), [*samples, Sample(4, "the cat sat on the", finish_reason="length")])
    assert result.winner == 0
    assert result.ranking[-1] == 1
    assert result.share == pytest.approx((0 + 5 / 6 + 5 / 6) / 3)
    assert 4 not in result.ranking


def test_mbr_takes_another_similarity() -> None:
    """The caller may choose the similarity."""
    samples = [Sample(i, text) for i, text in enumerate(["aaa", "b", "c"])]
    result = mbr((), samples, similarity=lambda first, second: float(len(first) == len(second)))
    assert result.ranking == (1, 2, 0)


def test_overlap() -> None:
    """Equal texts overlap fully, and different ones not at all."""
    assert (overlap("a b", "a b"), overlap("a b", "c d"), overlap("a b c d", "a d e f")) == (1.0, 0.0, 0.5)


CLASSES = st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=12)
SCORES = st.lists(st.floats(0, 1), min_size=12, max_size=12)
BY_CLASS = ("majority", "weighted", "borda", "confidence")


def elect_shuffled(vote: Vote, answers: list[str], scores: list[float], seed: int) -> VoteResult:
    """Return the result if the same samples finish in another order."""
    samples = finished(answers)[1]
    shuffled = random.Random(seed).sample(samples, len(samples))
    grouper = Grouper()
    for sample in shuffled:
        grouper.add(sample, Answer(sample.content, sample.content) if sample.content else None)
    return vote(grouper.groups, shuffled, VoteOptions(dict(enumerate(scores[: len(answers)]))))


@settings(deadline=None)
@given(CLASSES, SCORES, st.integers(0, 99), st.sampled_from(BY_CLASS))
def test_the_order_matters_only_for_ties(
    answers: list[str], scores: list[float], seed: int, name: str
) -> None:
    """The order of finishing changes neither the groups' weights nor a leader that is alone."""
    one = elect(VOTES[name], answers, scores[: len(answers)])
    other = elect_shuffled(VOTES[name], answers, scores, seed)
    assert {g.answer.key: g.weight for g in one.groups} == {g.answer.key: g.weight for g in other.groups}
    weights = [group.weight for group in one.groups]
    if len(weights) == 1 or (weights and weights[0] > weights[1]):
        assert one.groups[0].answer == other.groups[0].answer
        assert one.share == other.share


@settings(deadline=None)
@given(CLASSES, SCORES, st.floats(0, 1), st.sampled_from(["majority", "weighted"]))
def test_one_more_for_the_leader_changes_nothing(
    answers: list[str], scores: list[float], score: float, name: str
) -> None:
    """One more sample for the leading group never makes another group win."""
    before = elect(VOTES[name], answers, scores[: len(answers)])
    if before.groups:
        leader = before.groups[0].answer.raw
        after = elect(VOTES[name], [*answers, leader], [*scores[: len(answers)], score])
        assert after.groups[0].answer.raw == leader


@settings(deadline=None)
@given(CLASSES, SCORES, st.sampled_from(sorted(VOTES)))
def test_every_vote_ranks_the_votable(answers: list[str], scores: list[float], name: str) -> None:
    """Every votable sample is ranked once, the winner first, and the share lies in [0, 1]."""
    result = elect(VOTES[name], answers, scores[: len(answers)])
    votable = [i for i, answer in enumerate(answers) if answer]
    assert sorted(result.ranking) == votable
    assert result.winner == (result.ranking[0] if votable else None)
    assert 0 <= result.share <= 1 + 1e-9


def test_only_the_ends_of_long_texts_are_compared() -> None:
    """Only the last words are compared, so hostile lengths cost no time."""
    end = " ".join(map(str, range(MAX_WORDS)))
    assert overlap("one beginning " + end, "and another " + end) == 1.0
