"""The automatic level spends little where samples agree, and more where they don't."""

from dataclasses import replace

from policies.escalation import AutoPolicy, Tier
from policies.types import SamplingRequest, VoteState
from scorers.types import Answer, Group

AUTO = SamplingRequest(level="auto", samples=16)


def after(*sizes: int, sampling: SamplingRequest = AUTO) -> VoteState:
    """Return the state after all launched samples finished, in groups of these sizes."""
    total, groups, start = sum(sizes), [], 0
    for number, size in enumerate(sizes):
        groups.append(Group(Answer(str(number), number), tuple(range(start, start + size)), float(size)))
        start += size
    return VoteState(sampling, tuple(groups), launched=total, finish_order=tuple(range(total)))


def launches(state: VoteState, policy: AutoPolicy | None = None) -> list[tuple[str | None, int | None, int]]:
    """Return level, thinking limit and number of what the policy launches now."""
    step = (policy or AutoPolicy()).step(state)
    return [(launch.sampling.level, launch.sampling.thinking_limit, launch.count) for launch in step.launch]


def test_it_starts_low() -> None:
    """The first three samples run at the low level."""
    assert launches(after()) == [("low", 1024, 3)]


def test_agreement_stops() -> None:
    """Three equal answers are enough."""
    assert AutoPolicy().step(after(3)).done


def test_disagreement_escalates() -> None:
    """After two against one, the three samples that could settle it run at the medium level."""
    assert launches(after(2, 1)) == [("medium", 4096, 3)]


def test_lasting_disagreement_goes_to_the_top() -> None:
    """After four against four, all samples that could settle it run at the highest level."""
    assert launches(after(4, 4)) == [("high", 16384, 5)]


def test_launches_are_split_where_a_tier_ends() -> None:
    """One launch never spans two levels."""
    policy = AutoPolicy((Tier("low", 2), Tier("high")), threshold=0.95)
    assert launches(after(), policy) == [("low", 1024, 2), ("high", 16384, 2)]


def test_one_sample_in_flight_does_not_delay_the_next_tier() -> None:
    """The next tier starts while one sample is in flight that can't settle the vote alone."""
    state = replace(after(1, 1), launched=3)
    assert [launch.sampling.level for launch in AutoPolicy().step(state).launch] == ["medium"]


def test_what_was_lost_at_the_top_is_drawn_again_at_the_top() -> None:
    """Replacements run at the last tier's level."""
    few = replace(AUTO, samples=4)
    lost = replace(after(1, 1, 1, sampling=few), launched=4, failures=1, retryable=frozenset({3}))
    policy = AutoPolicy((Tier("low", 3), Tier("high", 1)))
    assert launches(lost, policy) == [("high", 16384, 1)]


def test_caps_hold() -> None:
    """The policy keeps within the requested samples and thinking limit."""
    capped = replace(AUTO, samples=4, thinking_limit=2000)
    assert launches(after(2, 1, sampling=capped)) == [("medium", 2000, 1)]
    assert AutoPolicy().step(after(2, 2, sampling=capped)).done


def test_a_requested_level_is_kept() -> None:
    """With a requested level, only the number of samples adapts."""
    fixed = SamplingRequest(level="high", thinking_limit=9000, samples=16)
    assert launches(after(sampling=fixed)) == [("high", 9000, 3)]


def test_one_sample_goes_to_the_middle() -> None:
    """A single sample, which has nothing to agree with, runs at the middle level."""
    assert launches(after(sampling=SamplingRequest(level="auto", samples=1))) == [("medium", 4096, 1)]
