"""The vote over finished samples."""

import pytest

from policies.types import SamplingRequest
from policies.voting import parse_vote, take_vote
from scorers.types import Answer, Group, Sample, Usage


def test_the_request_names_the_vote() -> None:
    """The result is that of the requested vote, with the scorer's scores."""
    groups = (Group(Answer("7", 7), (0, 1), 2.0), Group(Answer("8", 8), (2,), 1.0))
    samples = [Sample(i, "") for i in range(3)]
    scores = {0: 0.1, 1: 0.2, 2: 0.9}
    assert take_vote(SamplingRequest(vote="majority"), groups, samples).winner == 0
    assert take_vote(SamplingRequest(vote="weighted"), groups, samples, scores).winner == 2
    assert take_vote(SamplingRequest(vote="majority"), groups, samples, min_share=0.9).abstained


def test_the_first_m_give_ties_to_the_shortest() -> None:
    """short-m@k breaks a tie by length; with every other rule the first to finish wins."""
    groups = (Group(Answer("7", 7), (0,), 1.0), Group(Answer("8", 8), (1,), 1.0))
    samples = [Sample(0, "", usage=Usage(completion=90)), Sample(1, "", usage=Usage(completion=50))]
    assert take_vote(SamplingRequest(stop="first-2"), groups, samples).winner == 1
    assert take_vote(SamplingRequest(stop="adaptive"), groups, samples).winner == 0


def test_unknown_votes_are_refused() -> None:
    """An unknown vote is an error that lists the allowed names."""
    assert parse_vote("borda") == "borda"
    with pytest.raises(ValueError, match="unknown vote 'lottery'; allowed: majority, weighted, best,"):
        parse_vote("lottery")
