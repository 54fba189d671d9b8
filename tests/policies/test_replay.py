"""What votes and stopping rules make of recorded samples."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.escalation import AutoPolicy, Tier
from policies.replay import GradedQuestion, GradedSample, ReplaySetting, pass_at, replay, simulate
from policies.stopping import VotePolicy
from policies.types import RunLimits, SamplingRequest, Step, VoteState
from scorers.types import Answer

ALL = ReplaySetting("majority", SamplingRequest(samples=0, stop="none"))
ADAPTIVE = ReplaySetting("adaptive", SamplingRequest(samples=0))


def question(answers: str, lengths: list[int] | None = None, right: str = "a") -> GradedQuestion:
    """A question with one sample a letter; "-" is a sample without an answer."""
    return GradedQuestion(
        tuple(
            GradedSample(letter, None if letter == "-" else Answer(letter, letter), letter == right, length)
            for letter, length in zip(answers, lengths or [10] * len(answers), strict=True)
        )
    )


def test_a_majority_draws_all() -> None:
    """All samples are drawn and paid for, and the most frequent answer wins."""
    result = simulate(question("abab-a", [1, 2, 3, 4, 5, 6]), range(6), ALL)
    assert (result.correct, result.samples, result.tokens) == (True, 6, 21)


def test_adaptive_draws_four_where_they_agree() -> None:
    """Four of one mind end it; the rest cost nothing."""
    result = simulate(question("aaaabbbb"), range(8), ADAPTIVE)
    assert (result.correct, result.samples, result.tokens) == (True, 4, 40)


def test_all_at_once_pays_for_stragglers() -> None:
    """Launched together, four agree after 13 tokens; the others have grown as far by then."""
    everything = replace(ADAPTIVE, policy=VotePolicy(launch="all"))
    result = simulate(question("aaaaabbb", [10, 11, 12, 13, 50, 60, 70, 80]), range(8), everything)
    assert (result.samples, result.tokens) == (8, 10 + 11 + 12 + 13 + 4 * 13)


def test_first_m_keeps_the_shortest() -> None:
    """The three that finish first decide, in whatever order they were launched."""
    first = ReplaySetting("first-3", SamplingRequest(samples=0, stop="first-3", vote="weighted"))
    result = simulate(question("bbbaaa", [90, 80, 70, 30, 20, 10]), range(6), first)
    assert (result.correct, result.tokens) == (True, 10 + 20 + 4 * 30)


def test_limits_are_kept() -> None:
    """A limit in tokens ends the drawing within one look of it, and what has finished decides."""
    limited = ReplaySetting(
        "limited", SamplingRequest(samples=0, stop="none", limits=RunLimits(max_tokens=300))
    )
    result = simulate(question("abbb", [60, 200, 200, 200]), range(4), limited)
    assert result.correct
    assert 300 <= result.tokens < 360
    late = ReplaySetting("late", SamplingRequest(samples=0, stop="none", limits=RunLimits(max_seconds=2.0)))
    assert simulate(question("abbb", [60, 200, 200, 200]), range(4), late).tokens == 60 + 3 * 100


def test_unsure_streams_are_aborted() -> None:
    """After its warm-up the confident rule gives up on a stream that falls below the threshold."""
    sure = GradedSample("a", Answer("a", "a"), True, 20, lows=(9.0,) * 20, confidence=9.0)
    other = replace(sure, text="b", answer=Answer("b", "b"), correct=False)
    unsure = replace(other, tokens=1000, lows=(1.0,) * 1000, confidence=1.0)
    recorded = GradedQuestion((sure, sure, other, sure, unsure, unsure))
    confident = ReplaySetting("confident", SamplingRequest(samples=0, stop="confident"))
    result = simulate(recorded, range(6), confident)
    assert result.correct
    assert result.tokens < 200


def test_levels_are_drawn_from_their_own_samples() -> None:
    """Escalation gets its first samples from those recorded at the low level, whatever the order."""
    low = GradedSample("b", Answer("b", "b"), False, 10, level="low")
    high = GradedSample("a", Answer("a", "a"), True, 100, level="high")
    auto = ReplaySetting(
        "auto", SamplingRequest(level="auto", samples=0), AutoPolicy((Tier("low", 3), Tier("high")))
    )
    assert simulate(GradedQuestion((high, low, high, low, low)), range(5), auto).tokens == 30


def test_scores_reach_the_vote() -> None:
    """The scores recorded with the samples weigh them."""
    scored = GradedQuestion(
        tuple(replace(s, score=0.9 if s.correct else 0.1) for s in question("abb").samples),
        lambda a, b: False,
    )
    assert simulate(
        scored, range(3), ReplaySetting("best", SamplingRequest(samples=0, stop="none", vote="best"))
    ).correct
    assert not simulate(scored, range(3), ALL).correct


def test_pass_at_k() -> None:
    """pass@k is the unbiased estimate: of 4 samples with 2 right, two miss with chance 1/6."""
    figure = pass_at([question("aabb", [10, 20, 30, 40])], 2)
    assert (figure.accuracy, figure.samples, figure.tokens) == (pytest.approx(500 / 6), 2, 50)
    assert pass_at([question("abbb"), question("bb")], 9).accuracy == 50


def test_figures_are_means_with_an_interval() -> None:
    """Accuracy is in percent over questions and orders, and its interval holds it."""
    questions = [question("aab"), question("abb"), question("aaa"), question("bbb")]
    figure = replay(questions, [ALL], shuffles=5)[0]
    assert (figure.name, figure.accuracy, figure.samples, figure.tokens) == ("majority", 50, 3, 30)
    assert 0 <= figure.low < 50 < figure.high <= 100


def test_the_same_seed_gives_the_same_figures() -> None:
    """Figures are reproducible, and the recorded order is used where no shuffles are asked for."""
    questions = [question("ababab"), question("bbbaaa")]
    assert replay(questions, [ADAPTIVE], seed=3) == replay(questions, [ADAPTIVE], seed=3)
    one = replay([question("ab")], [replace(ALL, sampling=SamplingRequest(samples=1))], shuffles=0)[0]
    assert one.accuracy == 100


def test_a_policy_that_waits_for_nothing_is_an_error() -> None:
    """A policy that neither launches nor finishes is reported instead of turning for ever."""

    class Idle:
        def step(self, state: VoteState) -> Step:
            """Do nothing."""
            return Step()

    with pytest.raises(RuntimeError, match="nothing in flight"):
        simulate(question("a"), [0], ReplaySetting("idle", SamplingRequest(), Idle()))


@settings(deadline=None)
@given(
    st.text("abc-", min_size=1, max_size=16), st.sampled_from(["adaptive", "window", "first-2", "confident"])
)
def test_no_rule_costs_more_than_all(answers: str, stop: str) -> None:
    """A stopping rule never generates more tokens than drawing all samples."""
    recorded = question(answers, list(range(1, len(answers) + 1)))
    full = simulate(recorded, range(len(answers)), ALL)
    ruled = simulate(
        recorded, range(len(answers)), ReplaySetting(stop, SamplingRequest(samples=0, stop=stop))
    )
    assert ruled.tokens <= full.tokens
    assert ruled.samples <= full.samples
